// SPDX-License-Identifier: Apache-2.0
//
// drain and demand-under-drain: everything is fetched in the background, without and with faults in
// front of it.
#include <absl/strings/str_cat.h>

#include <utility>
#include <vector>

#include "client/bench/benchmark.h"
#include "client/bench/floor.h"
#include "client/bench/stage.h"

namespace faultline::bench {
namespace {

// What is faster has found its page there.
constexpr double kWaitedMicros = 5;
// So many faults decide a p99; a longer measurement without a drain says no more.
constexpr uint64_t kUndisturbedTouches = 20000;

std::vector<double> ThoseThatWaited(std::vector<double> micros) {
  std::erase_if(micros, [](double one) { return one <= kWaitedMicros; });
  return micros;
}

}  // namespace

absl::StatusOr<Report> Drain(const BenchOptions& options) {
  absl::StatusOr<Stage> stage = Stage::Set(options, {"--drain"});
  if (!stage.ok()) return stage.status();
  if (absl::Status status = stage->FillVolume(); !status.ok()) return status;
  Report report;
  for (int i = 0; i < options.repetitions; ++i) {
    absl::StatusOr<double> floor = MeasureTcpStream(options.pages * kPageSize, options.stack.link);
    if (!floor.ok()) return floor.status();
    TouchPlan plan;
    plan.mode = "drain";
    plan.content = stage->content();
    absl::StatusOr<TouchResult> result = stage->Touch(stage->stack().agent(), plan);
    if (!result.ok()) return result.status();
    report.AddFigure("throughput", "MiB/s", result->mib_per_second(), "tcp_stream", *floor);
    report.AddDetail("handover to last page", "s", result->seconds);
    AddPageDetails(*result, &report);
  }
  report.configuration = absl::StrCat(
      stage->Describe(), "; MiB/s are of memory filled; tcp_stream: one TCP connection",
      options.stack.link.limits() ? " through a link like this one" : "", ", nothing compressed");
  return report;
}

absl::StatusOr<Report> DemandUnderDrain(const BenchOptions& options) {
  absl::StatusOr<Stage> stage = Stage::Set(options);
  if (!stage.ok()) return stage.status();
  absl::StatusOr<AgentProcess> draining = stage->stack().StartAgent("draining", {"--drain"});
  if (!draining.ok()) return draining.status();
  if (absl::Status status = stage->FillVolume(); !status.ok()) return status;
  Report report;
  for (int i = -1; i < options.repetitions; ++i) {
    TouchPlan plan = stage->RandomTouches(i);
    plan.touches = kUndisturbedTouches;
    absl::StatusOr<TouchResult> undisturbed = stage->Touch(stage->stack().agent(), plan);
    if (!undisturbed.ok()) return undisturbed.status();
    plan.touches = 0;
    absl::StatusOr<TouchResult> result = stage->Touch(*draining, plan);
    if (!result.ok()) return result.status();
    std::vector<double> waited = ThoseThatWaited(result->micros);
    const auto waits = static_cast<double>(waited.size());
    // Nobody has waited: that is what the quantiles tell, then.
    if (waited.empty()) waited = std::move(result->micros);
    if (i < 0) continue;  // warm-up
    report.AddLatencies(waited, "fault-random", ThoseThatWaited(undisturbed->micros));
    report.AddDetail("touches that waited", "touches", waits);
    report.AddDetail("all touches", "s", result->seconds);
    AddPageDetails(*result, &report);
  }
  report.configuration = absl::StrCat(
      stage->Describe(), " after a warm-up, ", options.threads,
      " faulting thread(s) in random order; latencies are of touches that took more than ",
      kWaitedMicros, " us; fault-random: the same without the drain, at most ", kUndisturbedTouches,
      " touches");
  return report;
}

}  // namespace faultline::bench
