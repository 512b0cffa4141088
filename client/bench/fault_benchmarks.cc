// SPDX-License-Identifier: Apache-2.0
//
// fault-random, fault-seq, fault-stride, fault-zipf and threads: memory that is touched, and
// nothing is there yet.
#include <absl/strings/str_cat.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "client/bench/benchmark.h"
#include "client/bench/floor.h"
#include "client/bench/stage.h"
#include "client/bench/touch_order.h"

namespace faultline::bench {
namespace {

double Sum(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

// What a policy has guessed, and what became of it. An agent may count less than that.
void AddPrefetchDetails(const TouchResult& result, Report* report) {
  constexpr const char* kCounters[][2] = {{"faulted", "faults_total"},
                                          {"prefetched", "prefetched_pages_total"},
                                          {"prefetch hits", "prefetch_hits_total"},
                                          {"prefetch waste", "prefetch_waste_total"}};
  for (const auto& [name, counter] : kCounters) {
    if (!result.attachment.contains(counter)) continue;
    report->AddDetail(name, "pages", result.attachment[counter].get<double>());
  }
}

// The mean of `from` to `to`, sums of times of `count` events that may have wrapped around.
double MeanMicros(uint64_t from, uint64_t to, size_t count) {
  return static_cast<double>(static_cast<int64_t>(to - from)) / 1e3 / static_cast<double>(count);
}

// Where the time of a fault goes, in its order. Clocks in the target and in the agent tell what is
// the kernel's: from the touch to the message being read, and from the fill to the thread running
// again, which it may do before the ioctl has returned.
void AddStageDetails(const TouchResult& result, Report* report) {
  const nlohmann::json& agent = result.attachment;
  const size_t touches = result.micros.size();
  const bool all_faulted = agent["faults_total"] == touches && agent["joined_faults_total"] == 0;
  if (all_faulted) {
    report->AddDetail("stage: queued in kernel to read", "us mean",
                      MeanMicros(result.begin_ns_sum, agent["read_ns_sum"], touches));
  }
  const auto add = [&](const char* stage, const char* unit, double micros) {
    report->AddDetail(absl::StrCat("stage: ", stage), unit, micros);
  };
  const double map = agent["map_p50_us"], resolve = agent["resolve_p50_us"];
  add("map", "us p50", map);
  add("queue", "us p50", std::max(resolve - map, 0.0));
  add("wire", "us p50", agent["wire_p50_us"]);
  add("server, but for the store", "us p50",
      agent["server_p50_us"].get<double>() - agent["store_p50_us"].get<double>());
  add("store", "us p50", agent["store_p50_us"]);
  add("fill", "us p50", agent["fill_p50_us"]);
  if (all_faulted) {
    report->AddDetail("stage: wake, after the fill", "us mean",
                      MeanMicros(agent["filled_ns_sum"], result.end_ns_sum, touches));
  }
  add("wire", "us p99", agent["wire_p99_us"]);
  add("server", "us p99", agent["server_p99_us"]);
  add("store", "us p99", agent["store_p99_us"]);
  add("fill", "us p99", agent["fill_p99_us"]);
}

absl::Status AddRepetition(const Stage& stage, const BenchOptions& options, TouchOrder order,
                           uint64_t seed, Report* report) {
  absl::StatusOr<std::vector<double>> floor =
      MeasureUffdTcp(PageCount(options.pages), MakeTouches(order, options.pages, 0, seed));
  if (!floor.ok()) return floor.status();
  const bool sequential = order == TouchOrder::kSequential;
  absl::StatusOr<double> stream = 0;
  if (sequential) {
    stream = MeasureTcpStream(options.pages * kPageSize, options.stack.link);
    if (!stream.ok()) return stream.status();
  }
  TouchPlan plan;
  plan.mode = TouchOrderName(order);
  plan.threads = options.threads;
  plan.seed = seed;
  plan.content = stage.content();
  absl::StatusOr<TouchResult> touched = stage.Touch(stage.stack().agent(), plan);
  if (!touched.ok()) return touched.status();
  report->AddLatencies(touched->micros, "uffd_tcp", *floor);
  report->AddFigure("all touches", "s", touched->seconds, "uffd_tcp", Sum(*floor) / 1e6);
  if (sequential) {
    report->AddFigure("throughput", "MiB/s",
                      static_cast<double>(options.pages * kPageSize) / (1 << 20) / touched->seconds,
                      "tcp_stream", *stream);
  }
  AddPageDetails(*touched, report);
  if (options.stages) AddStageDetails(*touched, report);
  if (options.prefetch != "none") AddPrefetchDetails(*touched, report);
  return absl::OkStatus();
}

absl::StatusOr<Report> Faults(const BenchOptions& options, TouchOrder order) {
  absl::StatusOr<Stage> stage = Stage::Set(options);
  if (!stage.ok()) return stage.status();
  if (absl::Status status = stage->FillVolume(); !status.ok()) return status;
  Report report;
  for (int i = -1; i < options.repetitions; ++i) {
    Report warm_up;
    absl::Status status = AddRepetition(*stage, options, order, static_cast<uint64_t>(i + 2),
                                        i < 0 ? &warm_up : &report);
    if (!status.ok()) return status;
  }
  report.configuration =
      absl::StrCat(stage->Describe(), " after a warm-up, ", options.threads,
                   " faulting thread(s); uffd_tcp: a pager without RPC layer and store, the same "
                   "touches by 1 thread");
  return report;
}

}  // namespace

absl::StatusOr<Report> FaultRandom(const BenchOptions& options) {
  return Faults(options, TouchOrder::kRandom);
}
absl::StatusOr<Report> FaultSequential(const BenchOptions& options) {
  return Faults(options, TouchOrder::kSequential);
}
absl::StatusOr<Report> FaultStride(const BenchOptions& options) {
  return Faults(options, TouchOrder::kStride);
}
absl::StatusOr<Report> FaultZipf(const BenchOptions& options) {
  return Faults(options, TouchOrder::kZipf);
}

absl::StatusOr<Report> Threads(const BenchOptions& options) {
  constexpr unsigned kThreads[] = {1, 8, 64};
  // So that one thread, whose faults take a millisecond each, is done in a second.
  constexpr uint64_t kTouchesOfAThread = 1000;
  absl::StatusOr<Stage> stage = Stage::Set(options);
  if (!stage.ok()) return stage.status();
  absl::StatusOr<AgentProcess> delayed =
      stage->stack().StartAgent("delayed", {"--inject=latency=1ms"});
  if (!delayed.ok()) return delayed.status();
  if (absl::Status status = stage->FillVolume(); !status.ok()) return status;
  const struct {
    const AgentProcess* agent;
    const char* suffix;
  } agents[] = {{&stage->stack().agent(), ""}, {&*delayed, ", fetches 1 ms late"}};
  Report report;
  for (int i = 0; i < options.repetitions; ++i) {
    for (const auto& [agent, suffix] : agents) {
      double of_one_thread = 0;
      for (const unsigned threads : kThreads) {
        TouchPlan plan = stage->RandomTouches(i);
        plan.threads = threads;
        plan.touches = std::min(options.pages, threads * kTouchesOfAThread);
        absl::StatusOr<TouchResult> result = stage->Touch(*agent, plan);
        if (!result.ok()) return result.status();
        const double speed = static_cast<double>(result->micros.size()) / result->seconds;
        if (threads == 1) of_one_thread = speed;
        const std::string how_many =
            absl::StrCat(threads, threads == 1 ? " thread" : " threads", suffix);
        report.AddFigure(how_many, "pages/s", speed, "1 thread", of_one_thread);
        const auto pages = static_cast<double>(result->pages);
        const std::string cpu = " CPU, " + how_many;
        report.AddDetail("agent" + cpu, "us/page", result->agent_cpu_micros / pages);
        report.AddDetail("server" + cpu, "us/page", result->server_cpu_micros / pages);
      }
    }
  }
  report.configuration =
      absl::StrCat(stage->Describe(), ", random order, at most ", kTouchesOfAThread,
                   " pages for each thread; ratio: to the "
                   "speed of 1 thread");
  return report;
}

}  // namespace faultline::bench
