// SPDX-License-Identifier: Apache-2.0
#include "client/vm/vm_watch.h"

#include <absl/strings/str_cat.h>
#include <absl/time/clock.h>
#include <absl/time/time.h>

#include <algorithm>
#include <utility>

#include "client/vm/fault_pause.h"
#include "client/vm/vm_progress.h"

namespace faultline {
namespace {

// Often enough at first for a move of some 100 ms to be over when it is.
constexpr absl::Duration kShortestLookInterval = absl::Milliseconds(10);
constexpr absl::Duration kLongestLookInterval = absl::Milliseconds(100);
constexpr int kLooks = 20;  // in the time that has passed
constexpr absl::Duration kLineInterval = absl::Seconds(1);

class Watch {
 public:
  Watch(IncomingVm& vm, const WatchOptions& options, const VmOutput& output)
      : vm_(vm),
        options_(options),
        output_(output),
        pause_(&vm.qemu(), options.stop_after, &output),
        start_(absl::Now()),
        next_(start_) {}

  absl::Duration TimeToNextLook() const {
    return std::clamp((absl::Now() - start_) / kLooks, kShortestLookInterval, kLongestLookInterval);
  }

  void Look() {
    if (complete_ && !pause_.stopped()) return;
    const absl::Time now = absl::Now();
    const absl::StatusOr<AttachmentStats> stats = vm_.Look();
    if (!stats.ok()) {
      // One that ends takes its attachment along.
      if (!lost_ && vm_.running()) {
        output_.Say("agent_lost", absl::StrCat("the guest waits at every page that is not there: ",
                                               stats.status().message()));
      }
      lost_ = true;
      return;
    }
    lost_ = false;
    pause_.Look(*stats);
    if (complete_) return;
    progress_.Add(*stats, now);
    if (stats->drained || progress_.pages_left() == 0) {
      complete_ = true;
      Complete(*stats, now);
      return;
    }
    if (!options_.drain || now < next_) return;
    next_ = now + kLineInterval;
    output_.Say("progress", progress_.Text(), progress_.Json());
  }

 private:
  void Complete(const AttachmentStats& stats, absl::Time now) {
    nlohmann::ordered_json json = progress_.Json();
    json["seconds"] = absl::ToDoubleSeconds(now - start_);
    output_.Say(
        "complete",
        absl::StrCat("all of the RAM is there after ",
                     absl::FormatDuration(absl::Trunc(now - start_, absl::Milliseconds(1))), ": ",
                     stats.faults_total, " faults, p50 ", static_cast<uint64_t>(stats.fault_p50_us),
                     "us, p99 ", static_cast<uint64_t>(stats.fault_p99_us), "us"),
        json);
    options_.on_complete();
  }

  IncomingVm& vm_;
  const WatchOptions& options_;
  const VmOutput& output_;
  FaultPause pause_;
  const absl::Time start_;
  absl::Time next_;
  VmProgress progress_;
  bool lost_ = false;
  bool complete_ = false;
};

}  // namespace

absl::Status WatchVm(IncomingVm& vm, const EndSignals& signals, const WatchOptions& options,
                     const VmOutput& output) {
  Watch watch(vm, options, output);
  while (vm.running()) {
    watch.Look();
    options.on_look();
    if (!signals.Wait(watch.TimeToNextLook())) continue;
    vm.End();
    return absl::OkStatus();
  }
  return vm.Wait();
}

}  // namespace faultline
