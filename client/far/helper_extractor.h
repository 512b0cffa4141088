// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_FAR_HELPER_EXTRACTOR_H_
#define FAULTLINE_CLIENT_FAR_HELPER_EXTRACTOR_H_

#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <memory>
#include <optional>
#include <vector>

#include "client/evict/page_extractor.h"
#include "client/far/command_memory.h"
#include "client/timers.h"
#include "client/uffd/uffd.h"
#include "client/unique_fd.h"

namespace faultline {

// Takes pages of private anonymous memory by the eviction helper of their process
// (eviction_helper.h). One caller at a time.
class HelperExtractor final : public PageExtractor {
 public:
  struct Target {
    UniqueFd command;  // of its helper; from the target, so it is looked at before it is trusted
    UniqueFd pidfd;
    Uffd* uffd = nullptr;  // of the memory; borrowed
  };

  // How long the helper may leave a command where it is, as that of a stopped process does.
  static constexpr absl::Duration kDeadline = absl::Milliseconds(200);

  // INVALID_ARGUMENT where `target.command` is no command memory.
  //
  // Another agent may have left a command: it is cancelled, or, where it runs, awaited. That has to
  // be before an event of the uffd is read: REQUIRES that none was since the other agent has ended.
  static absl::StatusOr<std::unique_ptr<HelperExtractor>> Open(Target target,
                                                               absl::Duration deadline = kDeadline);
  ~HelperExtractor() override;

  void Release() override;
  // What was taken last: after Open() by another agent, whether or not it got to know.
  Leftover TakeLeftover() const override;

  // DEADLINE_EXCEEDED: the target did not begin with it, and never will. Where it has begun (and
  // was stopped in the middle), Extract() returns when it goes on, or ends. NOT_FOUND: the process
  // has ended or executed another program. FAILED_PRECONDITION: the helper alone has ended: nothing
  // is taken any more. DATA_LOSS: it has ended in the middle of this command, and what it had taken
  // is lost.
  absl::Status Extract(std::span<const uint64_t> addresses, std::span<Extraction> outcomes,
                       std::byte* bytes) override;

 private:
  HelperExtractor(Target target, absl::Duration deadline, CommandMemory* command)
      : target_(std::move(target)), deadline_(deadline), command_(command) {}

  void Post(std::span<const uint64_t> addresses);
  // Returns OK once the command is done.
  absl::Status Await();
  bool HelperHasEnded() const;
  void Sleep(CommandState state, SteadyClock::time_point until);
  absl::Status WhyItEnded();
  absl::Status Collect(std::span<const uint64_t> addresses, std::span<Extraction> outcomes,
                       std::byte* bytes);
  void WakeTaken(std::span<const uint64_t> addresses, std::span<const Extraction> outcomes);

  const Target target_;
  const absl::Duration deadline_;
  CommandMemory* const command_;  // mapped from target_.command
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_FAR_HELPER_EXTRACTOR_H_
