// SPDX-License-Identifier: Apache-2.0
//
// replay: the second start of a program whose working set was recorded at the first.
#include <absl/strings/str_cat.h>
#include <absl/time/clock.h>
#include <absl/time/time.h>

#include <algorithm>
#include <string>
#include <vector>

#include "client/bench/benchmark.h"
#include "client/bench/stage.h"

namespace faultline::bench {
namespace {

// A program touches a tenth of its memory, and is to find most of that in place.
constexpr uint64_t kPagesForATouch = 10;
constexpr absl::Duration kMergePatience = absl::Seconds(20);

// The agent hands over what it has recorded when the attachment has ended.
absl::Status AwaitWorkingSet(const Stage& stage, uint64_t pages) {
  for (const absl::Time end = absl::Now() + kMergePatience; absl::Now() < end;) {
    absl::StatusOr<std::string> listed =
        stage.stack().Faultline({"--output=json", "volume", "working-set", kBenchVolume});
    if (!listed.ok()) return listed.status();
    const nlohmann::json set = nlohmann::json::parse(*listed, nullptr, false);
    if (set.is_object() && set.value("pages", uint64_t{0}) == pages) return absl::OkStatus();
    absl::SleepFor(absl::Milliseconds(5));
  }
  return absl::DeadlineExceededError(
      absl::StrCat("the working set of ", pages, " pages was not kept"));
}

absl::Status AddRepetition(const Stage& stage, const AgentProcess& waiting, TouchPlan plan,
                           Report* report) {
  if (absl::Status status = stage.FillVolume(); !status.ok()) return status;
  absl::StatusOr<TouchResult> first = stage.Touch(stage.stack().agent(), plan);
  if (!first.ok()) return first.status();
  if (absl::Status status = AwaitWorkingSet(stage, plan.touches); !status.ok()) return status;
  absl::StatusOr<TouchResult> second = stage.Touch(waiting, plan);
  if (!second.ok()) return second.status();
  absl::StatusOr<TouchResult> racing = stage.Touch(stage.stack().agent(), plan);
  if (!racing.ok()) return racing.status();
  report->AddFigure("second start, all touches", "s", second->seconds, "first start",
                    first->seconds);
  report->AddFigure("the same, replay not waited for", "s", racing->seconds, "first start",
                    first->seconds);
  const auto faults = [](const TouchResult& result) {
    return result.attachment["faults_total"].get<double>();
  };
  report->AddDetail("faults, first start", "pages", faults(*first));
  report->AddDetail("faults, second start", "pages", faults(*second));
  report->AddDetail("faults, replay not waited for", "pages", faults(*racing));
  const auto pages = static_cast<double>(second->pages);
  report->AddDetail("agent CPU", "us/page", second->agent_cpu_micros / pages);
  report->AddDetail("server CPU", "us/page", second->server_cpu_micros / pages);
  return stage.stack().Faultline({"volume", "delete", kBenchVolume}).status();
}

}  // namespace

absl::StatusOr<Report> Replay(const BenchOptions& options) {
  absl::StatusOr<Stage> stage = Stage::Set(options, {"--working-set=both"});
  if (!stage.ok()) return stage.status();
  absl::StatusOr<AgentProcess> waiting =
      stage->stack().StartAgent("waiting", {"--replay-wait=60s"});
  if (!waiting.ok()) return waiting.status();
  const uint64_t touches = std::max<uint64_t>(1, options.pages / kPagesForATouch);
  Report report;
  for (int i = 0; i < options.repetitions; ++i) {
    TouchPlan plan = stage->RandomTouches(i);
    plan.touches = touches;
    absl::Status status = AddRepetition(*stage, *waiting, plan, &report);
    if (!status.ok()) return status;
  }
  report.configuration = absl::StrCat(
      stage->Describe(), ", ", touches, " pages touched in random order by ", options.threads,
      " thread(s); second start: the handover is answered when the working set of the first is in "
      "place, and that time is not among that of the touches");
  return report;
}

}  // namespace faultline::bench
