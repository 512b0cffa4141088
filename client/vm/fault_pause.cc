// SPDX-License-Identifier: Apache-2.0
#include "client/vm/fault_pause.h"

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>

#include <string>

namespace faultline {
namespace {

// QEMU may not be able to answer: its main thread may wait for a page itself.
constexpr absl::Duration kAnswerTimeout = absl::Seconds(1);

}  // namespace

void FaultPause::Look(const AttachmentStats& stats) {
  const bool late =
      stats.waiting_faults != 0 && absl::Seconds(stats.oldest_wait_seconds) >= deadline_;
  switch (state_) {
    case State::kRuns:
      if (late) Stop(stats.oldest_wait_seconds);
      break;
    case State::kWaits:
      if (late) Stop(stats.oldest_wait_seconds);
      if (!late) GoOn();
      break;
    case State::kStopped:
      if (!late) Continue();
      break;
    case State::kLeftAlone:
      if (!late) state_ = State::kRuns;
      break;
  }
}

void FaultPause::Stop(double waited_seconds) {
  qemu_->set_timeout(kAnswerTimeout);
  const absl::StatusOr<bool> running = qemu_->IsRunning();
  if (absl::IsDeadlineExceeded(running.status())) {  // is tried again
    if (state_ == State::kRuns) {
      output_->Say("waiting",
                   absl::StrFormat("pages have not come for %.1fs, and QEMU itself waits for one: "
                                   "the machine stands still, but cannot be stopped",
                                   waited_seconds),
                   {{"waited_seconds", waited_seconds}});
    }
    state_ = State::kWaits;
    return;
  }
  if (!running.ok() || !*running) {
    state_ = State::kLeftAlone;
    return;
  }
  const absl::Status status = qemu_->Stop();
  // Without an answer, too, QEMU has the command, and does it before any that comes later.
  const bool waits = absl::IsDeadlineExceeded(status);
  if (!status.ok() && !waits) {
    state_ = State::kLeftAlone;
    output_->Say(
        "not_stopped",
        absl::StrCat("pages do not come, and the machine cannot be stopped: ", status.message()));
    return;
  }
  state_ = State::kStopped;
  output_->Say(
      "stopped",
      absl::StrFormat("pages have not come for %.1fs: the machine is stopped until they "
                      "do%s",
                      waited_seconds,
                      waits ? " (its processor waits for one, its clock stands still)" : ""),
      {{"waited_seconds", waited_seconds}, {"processor_waits", waits}});
}

void FaultPause::GoOn() {
  state_ = State::kRuns;
  output_->Say("continued", "pages come again, and the machine goes on");
}

void FaultPause::Continue() {
  const absl::Status status = qemu_->Continue();
  if (absl::IsDeadlineExceeded(status)) return;  // is tried again
  if (status.ok()) {
    GoOn();
  } else {
    state_ = State::kRuns;
    output_->Say("not_continued", absl::StrCat("pages come again, but the machine cannot go on: ",
                                               status.message()));
  }
}

}  // namespace faultline
