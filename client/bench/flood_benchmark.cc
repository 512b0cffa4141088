// SPDX-License-Identifier: Apache-2.0
//
// demand-under-flood: faults of one client of the page server, while another asks for as much as it
// can.
#include <absl/strings/str_cat.h>
#include <absl/time/clock.h>
#include <sys/resource.h>

#include <algorithm>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "client/bench/benchmark.h"
#include "client/bench/stage.h"
#include "client/remote/page_server.h"
#include "proto/mutex.h"

namespace faultline::bench {
namespace {

// Each has four connections of its own.
constexpr int kFloodServers = 8;
// More than the window of its lane, so that there is always one that waits.
constexpr int kDemandFetches = 16;
constexpr int kBulkFetches = 8;
constexpr uint64_t kStride = 61;  // pages; nothing is next to what was asked for before
// This machine stands in for two, of which the other one's processor is not this one's.
constexpr int kNice = 19;

// A client that asks for pages of a volume without end, single ones for faults and many at once.
class Flood {
 public:
  static absl::StatusOr<std::unique_ptr<Flood>> Start(const std::string& address,
                                                      const ServerTls& tls) {
    std::unique_ptr<Flood> flood(new Flood);
    absl::Status status;
    // What is started from it is as nice as it is.
    std::thread([&] {
      setpriority(PRIO_PROCESS, 0, kNice);
      status = flood->Connect(address, tls);
      if (status.ok()) flood->Begin();
    }).join();
    if (!status.ok()) return status;
    return flood;
  }

  ~Flood() {
    MutexLock lock(mu_);
    stopping_ = true;
    while (under_way_ > 0) ended_.Wait(mu_);
  }

  // Fetched so far; an error, where there was any.
  absl::StatusOr<uint64_t> pages() {
    MutexLock lock(mu_);
    if (!error_.ok()) return error_;
    return pages_;
  }

 private:
  Flood() = default;

  absl::Status Connect(const std::string& address, const ServerTls& tls) {
    for (int i = 0; i < kFloodServers; ++i) {
      auto server = PageServer::Create({.address = address, .tls = tls, .threads = 1});
      if (!server.ok()) return server.status();
      auto source = (*server)->OpenVolume(kBenchVolume, absl::Now() + absl::Seconds(30));
      if (!source.ok()) return source.status();
      servers_.push_back(*std::move(server));
      sources_.push_back(*std::move(source));
    }
    return absl::OkStatus();
  }

  void Begin() {
    for (const auto& source : sources_) {
      for (int i = 0; i < kDemandFetches; ++i) Fetch(source.get(), FetchLane::kDemand);
      for (int i = 0; i < kBulkFetches; ++i) Fetch(source.get(), FetchLane::kBulk);
    }
  }

  void Fetch(PageSource* source, FetchLane lane) {
    const uint64_t size = source->size().raw();
    const uint64_t count =
        lane == FetchLane::kDemand ? 1 : std::min(source->max_fetch().raw(), size);
    uint64_t first;
    {
      MutexLock lock(mu_);
      if (stopping_ || !error_.ok()) return;
      ++under_way_;
      next_ += kStride;
      first = next_ % (size - count + 1);
    }
    source->Fetch({PageIndex(first), PageCount(count)}, lane, absl::Now() + absl::Minutes(1),
                  [this, source, lane, count](auto runs) {
                    const absl::Status status = runs.status();
                    // It makes it hard for itself to connect, too.
                    if (status.ok() || IsRetryable(status)) Fetch(source, lane);
                    MutexLock lock(mu_);
                    if (status.ok()) pages_ += count;
                    if (!status.ok() && !IsRetryable(status) && error_.ok()) error_ = status;
                    if (--under_way_ == 0) ended_.SignalAll();
                  });
  }

  Mutex mu_;
  CondVar ended_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  int under_way_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t next_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t pages_ ABSL_GUARDED_BY(mu_) = 0;
  absl::Status error_ ABSL_GUARDED_BY(mu_);
  std::vector<std::unique_ptr<PageServer>> servers_;
  std::vector<std::shared_ptr<PageSource>> sources_;  // after them
};

}  // namespace

absl::StatusOr<Report> DemandUnderFlood(const BenchOptions& options) {
  if (options.transport != Transport::kTls) {
    return absl::InvalidArgumentError(
        "demand-under-flood needs --transport=tls: the server tells clients of one host apart by "
        "their certificates");
  }
  absl::StatusOr<Stage> stage = Stage::Set(options);
  if (!stage.ok()) return stage.status();
  if (absl::Status status = stage->FillVolume(); !status.ok()) return status;
  const LocalStack& stack = stage->stack();
  absl::Status granted =
      stack.Faultline({"volume", "grant", kBenchVolume, kOtherClient, "reader"}).status();
  if (!granted.ok()) return granted;
  Report report;
  for (int i = -1; i < options.repetitions; ++i) {
    const TouchPlan plan = stage->RandomTouches(i);
    absl::StatusOr<TouchResult> undisturbed = stage->Touch(stack.agent(), plan);
    if (!undisturbed.ok()) return undisturbed.status();
    auto flood = Flood::Start(stack.address_for_agents(), stack.other_client_tls());
    if (!flood.ok()) return flood.status();
    const absl::Time begun = absl::Now();
    absl::StatusOr<TouchResult> result = stage->Touch(stack.agent(), plan);
    if (!result.ok()) return result.status();
    const absl::StatusOr<uint64_t> flooded = (*flood)->pages();
    if (!flooded.ok()) return flooded.status();
    if (i < 0) continue;  // warm-up
    report.AddLatencies(result->micros, "without the flood", undisturbed->micros);
    report.AddDetail("the other client", "MiB/s",
                     static_cast<double>(PageCount(*flooded).in_bytes()) / (1 << 20) /
                         absl::ToDoubleSeconds(absl::Now() - begun));
    AddPageDetails(*result, &report);
  }
  report.configuration = absl::StrCat(
      stage->Describe(), " after a warm-up, ", options.threads,
      " faulting thread(s) in random order, while another client has ",
      kFloodServers * kDemandFetches, " fetches of one page and ", kFloodServers * kBulkFetches,
      " of as many as may be under way, over ", 4 * kFloodServers, " connections, at nice ", kNice);
  return report;
}

}  // namespace faultline::bench
