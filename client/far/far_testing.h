// SPDX-License-Identifier: Apache-2.0
//
// What the tests of far memory have in common: a run of far_target, and the least agent that can
// serve it. The agent keeps what was taken in a map, fills faults from there (a page that is in
// neither place reads as zero), and follows the memory through the real AddressSpace.
#ifndef FAULTLINE_CLIENT_FAR_FAR_TESTING_H_
#define FAULTLINE_CLIENT_FAR_FAR_TESTING_H_

#include <algorithm>
#include <array>
#include <atomic>
#include <list>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "client/address_space.h"
#include "client/far/far_target.h"
#include "client/far/helper_extractor.h"
#include "client/unique_fd.h"
#include "proto/mutex.h"

namespace faultline {

// Killed at the end. Blocking; not thread-safe.
class FarProcess {
 public:
  FarProcess(size_t pages, const std::string& option);
  ~FarProcess();
  FarProcess(const FarProcess&) = delete;
  FarProcess& operator=(const FarProcess&) = delete;

  pid_t pid() const { return pid_; }
  UniqueFd OpenPidfd() const;
  const FarTargetHello& hello() const { return hello_; }
  UniqueFd TakeUffd() { return std::move(uffd_); }
  UniqueFd DuplicateCommand() const;

  // Tells it what to do, and returns its answer; "TIMEOUT" after a minute.
  std::string Do(const std::string& verb, size_t first = 0, size_t count = 0);
  void Tell(const std::string& verb, size_t first = 0, size_t count = 0);
  std::string Answer();

  // How many of its pages the kernel has, in memory or in swap.
  size_t PagesPresent(uint64_t start, size_t pages) const;

 private:
  void ReceiveHello();

  pid_t pid_ = 0;
  UniqueFd socket_, uffd_, command_;
  FarTargetHello hello_ = {};
};

class FarAgent {
 public:
  using Page = std::array<std::byte, kPageSize>;

  // Serves `process` from here on.
  explicit FarAgent(FarProcess* process);
  ~FarAgent();
  FarAgent(const FarAgent&) = delete;
  FarAgent& operator=(const FarAgent&) = delete;

  HelperExtractor& extractor() { return *extractor_; }
  SharedMutex& map_changing_lock() { return parent_->space.map_changing_lock(); }
  // Another agent's, which has come after the extractor's is gone.
  void ReplaceExtractor(FarProcess* process);

  // Takes these pages of the memory, but for discarded ones, and keeps them. One caller at a time.
  struct Taken {
    absl::Status status;
    std::vector<Extraction> outcomes;
    size_t count(Extraction outcome) const {
      return std::count(outcomes.begin(), outcomes.end(), outcome);
    }
  };
  Taken Take(const std::vector<uint64_t>& addresses);
  // As Take(), of `pages` pages from the n-th of the memory that was handed over.
  Taken TakePages(size_t first, size_t pages);
  // As Take(), of up to `count` pages that are anywhere now: of a run, or of any, as `random` says.
  Taken TakeAny(size_t count, unsigned random);

  // While it is held, no event is read, and no fault.
  void Hold();
  void Release();

 private:
  struct Served {
    Served(std::unique_ptr<Uffd> a, const std::vector<Mapping>& m) : uffd(std::move(a)), space(m) {}
    Served(std::unique_ptr<Uffd> a, const AddressSpace& of) ABSL_NO_THREAD_SAFETY_ANALYSIS
        : uffd(std::move(a)),
          space(AddressSpace::ForkOf::kParent, of) {}

    const std::unique_ptr<Uffd> uffd;
    AddressSpace space;
    std::vector<FaultEvent> waiting;  // of the reader
    Mutex mu;
    std::map<PageIndex, std::shared_ptr<const Page>> kept ABSL_GUARDED_BY(mu);
    std::set<PageIndex> leaving ABSL_GUARDED_BY(mu);
    // Not filled since the event of their discard was read: the kernel may be about to drop them,
    // and they must not be taken with what they had.
    std::set<PageIndex> discarded ABSL_GUARDED_BY(mu);
  };

  void Run();
  void Read(Served* served);
  void Apply(Served* served, UffdEvent* event);
  void AddChild(Served* parent, UniqueFd uffd);
  // Whether the fault is answered.
  bool Fill(Served* served, const FaultEvent& fault);

  const FarTargetHello hello_;
  std::unique_ptr<Served> parent_;
  std::unique_ptr<HelperExtractor> extractor_;
  std::list<std::unique_ptr<Served>> children_;  // of the reader
  std::atomic<bool> stop_ = false;
  std::atomic<bool> held_ = false;
  std::thread reader_;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_FAR_FAR_TESTING_H_
