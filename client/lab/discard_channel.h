// SPDX-License-Identifier: Apache-2.0
//
// DiscardChannel: what lies between madvise(MADV_DONTNEED) of a target and its monitor, once as the
// running kernel does it, and twice as a model of it, so that the one question that was left open
// when the fills got their own lock can be measured:
//
//   Since Linux 6.9 userfaultfd_remove() does
//       down_write(&ctx->map_changing_lock); atomic_inc(&ctx->mmap_changing); up_write(...);
//   before it queues the event, and so waits for all fills under way, which hold the lock shared
//   (the *exclusive wait*). The reviewer asked whether atomic_inc alone would not do: it tells new
//   fills to answer EAGAIN, and lets those under way be (*fire and forget*), as it was before 6.9.
//
// A kernel cannot be changed from here. The model replaces exactly this part: a userfaultfd without
// EVENT_REMOVE, for which the kernel does none of it, a lock and a counter of our own around the
// ioctl, and an event of our own. The fill and the zap themselves stay the kernel's, with all races
// between them. The model with the exclusive wait is there to be compared with the kernel itself:
// where the two agree, the model without it can be believed.
#ifndef FAULTLINE_CLIENT_LAB_DISCARD_CHANNEL_H_
#define FAULTLINE_CLIENT_LAB_DISCARD_CHANNEL_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "client/lab/lab_uffd.h"

namespace faultline {

enum class DiscardKernel {
  kRunning,          // the kernel that runs; the exclusive wait since 6.9, fire and forget before
  kModelExclusive,   // the model, with the exclusive wait
  kModelFireForget,  // the model, with atomic_inc alone
};
const char* DiscardKernelName(DiscardKernel kernel);

// Thread-safe, with one thread that calls Discard, one that calls WaitForEvent and ReadEvent, and
// any number that call Copy.
class DiscardChannel {
 public:
  // Serves `range`, private anonymous memory of this process, which must outlive the channel.
  static absl::StatusOr<std::unique_ptr<DiscardChannel>> Create(DiscardKernel kernel,
                                                                AddressRange range);
  virtual ~DiscardChannel() = default;

  // The target: madvise(MADV_DONTNEED). Returns once the event was read and the pages are gone.
  virtual absl::Status Discard(AddressRange range) = 0;

  // The monitor: waits for an event; false after Stop. And takes it, which is the moment at which
  // the target goes on; nothing where there is none.
  virtual bool WaitForEvent() = 0;
  virtual std::optional<AddressRange> ReadEvent() = 0;
  // UFFDIO_COPY.
  virtual FillResult Copy(uint64_t to, const void* from, uint64_t length) = 0;

  // Ends WaitForEvent. REQUIRES: nobody is in Discard.
  virtual void Stop() = 0;
};

// As Create for the models. `in_copy`, which may be empty, is called in each Copy once it was
// admitted, before the ioctl.
absl::StatusOr<std::unique_ptr<DiscardChannel>> CreateModelledChannel(
    DiscardKernel kernel, AddressRange range, std::function<void()> in_copy);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_LAB_DISCARD_CHANNEL_H_
