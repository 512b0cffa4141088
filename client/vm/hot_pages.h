// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_VM_HOT_PAGES_H_
#define FAULTLINE_CLIENT_VM_HOT_PAGES_H_

#include <absl/status/statusor.h>
#include <absl/time/time.h>
#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "client/uffd/uffd.h"
#include "client/unique_fd.h"
#include "proto/mutex.h"
#include "proto/page_set.h"

namespace faultline {

// Finds out which pages of its RAM a running machine uses all the time: those that it cannot do
// anything without where it goes on.
//
// The RAM is a file that is mapped shared, so its pages can be taken out of QEMU's page tables and
// nothing is lost: QEMU is made to do MADV_DONTNEED (syscall_injection.h), and has those that it
// has touched in its page tables again, each by a minor fault, when they are looked at some
// milliseconds later. This is done several times; hot are the pages that were touched in most of
// them, be they read or written. Neither the kernel's soft-dirty bits nor its idle pages would do:
// the first know of writes only, and few kernels have the second.
//
// A read fault maps up to 16 pages around it, too. It does not where the memory is registered with
// a userfaultfd for write-protection (mm/memory.c, should_fault_around()), which is done for as
// long, without protecting any page. Where QEMU may not have one, more pages are taken for hot.
//
// The machine is slower by its minor faults meanwhile; its main thread is stopped each time for as
// long as the page tables take, about 10 ms for each GiB the first time.
class HotPageSampler {
 public:
  // Begins, on a thread of its own, with the RAM that process `pid` has mapped from `file`. Errors
  // of FindTargetMemory() and InjectSyscalls(); FAILED_PRECONDITION where it is not mapped shared,
  // or is registered with a userfaultfd: what serves it would take pages for discarded.
  static absl::StatusOr<std::unique_ptr<HotPageSampler>> Start(pid_t pid, const std::string& file);
  // Ends it. The memory is as it was but for the page tables, also where this process is killed.
  ~HotPageSampler();
  HotPageSampler(const HotPageSampler&) = delete;
  HotPageSampler& operator=(const HotPageSampler&) = delete;

  // Ends it, once it has looked often enough (100 ms). The hot pages, by their place in the file,
  // at most kMostHotPages; or why it is not known.
  absl::StatusOr<PageSet> Finish();

 private:
  HotPageSampler(pid_t pid, UniqueFd pidfd, AddressRange range, PageIndex first)
      : pid_(pid), pidfd_(std::move(pidfd)), range_(range), first_(first) {}

  void Run();
  absl::Status Look();
  // Takes all pages out of the page tables.
  absl::Status Unmap();
  bool WaitForNextLook();

  const pid_t pid_;
  const UniqueFd pidfd_;
  const AddressRange range_;
  const PageIndex first_;  // of the file
  UniqueFd uffd_;
  // Of the sampling thread, and after it was joined.
  std::vector<uint8_t> touched_;  // in how many looks
  unsigned looks_ = 0;
  absl::Status status_;
  Mutex mu_;
  bool finish_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

// 16 MiB: what a slow link carries before anybody notices.
inline constexpr PageCount kMostHotPages{4096};

// Of `looks` looks at pages, each of which was touched in `touched` of them, those that were in at
// least half, and in two; and if these are more than `most`, the ones touched more often, and the
// first of those that are equal.
std::vector<bool> ChooseHotPages(const std::vector<uint8_t>& touched, unsigned looks,
                                 PageCount most);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_VM_HOT_PAGES_H_
