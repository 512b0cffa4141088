// SPDX-License-Identifier: Apache-2.0
#include "client/churn/watchdog.h"

#include <signal.h>

#include <cinttypes>

namespace faultline::churn {
namespace {

constexpr auto kPeriod = std::chrono::milliseconds(50);

}  // namespace

Watchdog::Watchdog(Tally* tally, std::chrono::nanoseconds limit, uint64_t seed)
    : tally_(tally),
      limit_nanos_(static_cast<uint64_t>(limit.count())),
      seed_(seed),
      thread_([this] { Run(); }) {}

Watchdog::~Watchdog() {
  stop_ = true;
  thread_.join();
}

void Watchdog::Run() {
  while (!stop_) {
    for (size_t entry = 0; entry < tally_->progress.size(); ++entry) Look(entry);
    std::this_thread::sleep_for(kPeriod);
  }
}

void Watchdog::Look(size_t entry) {
  Progress& progress = tally_->progress[entry];
  const uint64_t started = progress.started_nanos.load(std::memory_order_acquire);
  const uint64_t now = NowNanos();
  if (started == 0 || started == reported_[entry] || now < started + limit_nanos_) return;
  reported_[entry] = started;
  const Operation operation = progress.operation.load(std::memory_order_relaxed);
  const uint64_t number = progress.number.load(std::memory_order_relaxed);
  const uint64_t address = progress.address.load(std::memory_order_relaxed);
  const pid_t child = progress.child.load(std::memory_order_relaxed);
  // Unless it came to an end meanwhile.
  if (progress.started_nanos.load(std::memory_order_acquire) != started) return;
  tally_->hangs.fetch_add(1, std::memory_order_relaxed);
  const size_t thread = entry < kMaxThreads ? entry : (entry - kMaxThreads) / kMaxChildren;
  Complain("faultline-churn: HANG: %s at %" PRIx64 " has not come back after %.1f s; seed %" PRIu64
           ", thread %zu, operation %" PRIu64 "%s%.0d",
           OperationName(operation).data(), address, static_cast<double>(now - started) / 1e9,
           seed_, thread, number, child != 0 ? ", in the forked child " : "", child);
  if (child != 0) kill(child, SIGKILL);
}

}  // namespace faultline::churn
