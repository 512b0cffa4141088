// SPDX-License-Identifier: Apache-2.0
#include "client/churn/churn.h"

#include <unistd.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "client/churn/storm.h"
#include "client/churn/volume_memory.h"
#include "client/churn/watchdog.h"
#include "proto/mutex.h"

namespace faultline::churn {
namespace {

using Clock = std::chrono::steady_clock;

// Operations of a thread for each of its slots in a generation. Few, so that for much of the time
// there are pages that have not come yet.
constexpr uint64_t kOperationsPerSlot = 4;
// Of the slots, but in the last generation, one in so many is checked as a whole at the end.
constexpr uint64_t kCheckedOneIn = 4;

// The number of threads that have not ended, to wait for with a deadline.
class Countdown {
 public:
  explicit Countdown(unsigned count) : count_(count) {}
  void Done() {
    MutexLock lock(mu_);
    if (--count_ == 0) zero_.SignalAll();
  }
  // Whether it is over.
  bool WaitUntil(Clock::time_point deadline) {
    MutexLock lock(mu_);
    while (count_ > 0 && Clock::now() < deadline) zero_.WaitUntil(mu_, deadline);
    return count_ == 0;
  }

 private:
  Mutex mu_;
  CondVar zero_;
  unsigned count_ ABSL_GUARDED_BY(mu_);
};

// After a handover that was lost with its agent.
constexpr auto kAttachAgain = std::chrono::milliseconds(20);

class Churn {
 public:
  using GiveUp = std::function<void(const nlohmann::ordered_json&)>;

  Churn(const ChurnOptions& options, Tally* tally, const GiveUp& give_up)
      : options_(options), give_up_(give_up) {
    company_.seed = options.seed;
    company_.memory = options.memory;
    company_.mix = options.mix;
    company_.pattern = Pattern(options.seed);
    company_.on_wrong = options.on_wrong;
    company_.tally = tally;
    for (unsigned i = 0; i < options.threads; ++i) {
      workers_.push_back(std::make_unique<Worker>(&company_, i));
      company_.workers.push_back(workers_.back().get());
    }
  }

  Failure Run() {
    begin_ = Clock::now();
    const Watchdog watchdog(company_.tally, options_.hang_limit, options_.seed);
    Failure failure;
    while (failure.ok() && !over_) failure = RunGeneration();
    return failure;
  }

  nlohmann::ordered_json Result() const;

 private:
  Failure RunGeneration();
  void RunWorkers(const std::vector<Slot>& slots);
  bool WaitForWorkers(Countdown* running);
  void ShowHanging() const;
  bool TimeIsUp() const {
    return options_.is_over() ||
           (options_.time.count() > 0 && Clock::now() - begin_ >= options_.time);
  }

  const ChurnOptions& options_;
  const GiveUp& give_up_;
  Company company_;
  std::vector<std::unique_ptr<Worker>> workers_;
  Clock::time_point begin_;
  uint64_t generations_ = 0;
  uint64_t next_operation_ = 0;  // of each thread
  bool over_ = false;
};

Failure Churn::RunGeneration() {
  VolumeMemory memory;
  Failure failure = VolumeMemory::Map(options_.memory, options_.pages, company_.pattern, &memory);
  if (!failure.ok()) return failure;
  company_.memfd = memory.memfd();
  std::unique_ptr<AgentAttachment> attachment;
  if (options_.socket.empty()) {
    memory.FillWith(company_.pattern);
  } else {
    failure = AgentAttachment::Attach(
        options_.socket, options_.volume,
        options_.drain ? AgentAttachment::Drain::kYes : AgentAttachment::Drain::kNo, memory,
        &attachment);
    if (options_.agent_may_die && IsAgentLoss(failure) && !TimeIsUp()) {
      // Whether it was noted is not known. That memory is left to itself.
      std::this_thread::sleep_for(kAttachAgain);
      return Success();
    }
    if (!failure.ok()) return failure;
  }
  if (options_.storm > 0) {
    RunStorm(&company_, options_.threads, options_.storm, memory.slots());
    over_ = true;
  } else {
    RunWorkers(memory.slots());
  }
  ++generations_;
  if (attachment == nullptr) return failure;
  options_.before_detach(generations_, attachment->id());
  for (const auto& worker : workers_) worker->UnmapSlots();
  return attachment->Detach();
}

void Churn::RunWorkers(const std::vector<Slot>& slots) {
  const uint64_t slots_each = slots.size() / options_.threads;
  uint64_t count = options_.generation_operations > 0 ? options_.generation_operations
                                                      : slots_each * kOperationsPerSlot;
  bool last = false;
  if (options_.operations > 0) {
    const uint64_t each = std::max<uint64_t>(1, options_.operations / options_.threads);
    const uint64_t left = each - std::min(each, next_operation_);
    last = left <= count;
    count = std::min(count, left);
  }
  Countdown running(options_.threads);
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < options_.threads; ++i) {
    // Neighbours belong to different threads, so that these change one piece of memory.
    std::vector<Slot> share;
    for (size_t j = i; j < slots.size(); j += options_.threads) share.push_back(slots[j]);
    workers_[i]->TakeSlots(std::move(share));
    threads.emplace_back([=, this, &running] {
      workers_[i]->Run(next_operation_, count);
      workers_[i]->Finish(last || company_.time_is_up ? 1 : kCheckedOneIn);
      running.Done();
    });
  }
  if (!WaitForWorkers(&running)) {
    ShowHanging();
    give_up_(Result());
  }
  for (std::thread& thread : threads) thread.join();
  next_operation_ += count;
  over_ = last || company_.time_is_up || company_.tally->stop;
}

// Where the threads and children that hang are, in their process's memory.
void Churn::ShowHanging() const {
  for (const Progress& progress : company_.tally->progress) {
    if (progress.started_nanos == 0) continue;
    const uint64_t address = progress.address;
    const pid_t process = progress.child != 0 ? progress.child.load() : getpid();
    std::ifstream maps("/proc/" + std::to_string(process) + "/maps");
    for (std::string line; std::getline(maps, line);) {
      uint64_t start = 0, end = 0;
      if (sscanf(line.c_str(), "%" SCNx64 "-%" SCNx64, &start, &end) == 2 && start <= address &&
          address < end) {
        Complain("faultline-churn: process %d hangs at %" PRIx64 ", in %s", process, address,
                 line.c_str());
      }
    }
  }
}

// False where one of them hangs for good.
bool Churn::WaitForWorkers(Countdown* running) {
  constexpr auto kPeriod = std::chrono::milliseconds(20);
  Clock::time_point progress = Clock::now();
  uint64_t checked = 0;
  while (!running->WaitUntil(Clock::now() + kPeriod)) {
    if (TimeIsUp()) company_.time_is_up = true;
    const uint64_t checked_now = company_.tally->checked_pages;
    if (checked_now != std::exchange(checked, checked_now)) progress = Clock::now();
    // One hang ends the run, but for the operations that still come to an end.
    if (company_.tally->hangs > 0 && options_.on_wrong == Company::OnWrong::kStop) {
      company_.tally->stop = true;
    }
    if (company_.tally->hangs > 0 && Clock::now() - progress > 2 * options_.hang_limit) {
      return false;
    }
  }
  return true;
}

nlohmann::ordered_json Churn::Result() const {
  const Tally& tally = *company_.tally;
  nlohmann::ordered_json operations = nlohmann::ordered_json::array();
  uint64_t total = 0;
  double worst_us = 0;
  std::string worst;
  for (size_t i = 0; i < kOperations; ++i) {
    const Tally::OfOperation& one = tally.operations[i];
    const std::string name(OperationName(static_cast<Operation>(i)));
    total += one.done;
    if (one.latency.MaxMicros() > worst_us) {
      worst_us = one.latency.MaxMicros();
      worst = name;
    }
    if (one.done + one.refused == 0 && one.latency.MaxMicros() == 0) continue;
    operations.push_back({{"name", name},
                          {"done_total", one.done.load()},
                          {"refused_total", one.refused.load()},
                          {"p50_us", one.latency.QuantileMicros(0.5)},
                          {"p99_us", one.latency.QuantileMicros(0.99)},
                          {"max_us", one.latency.MaxMicros()}});
  }
  const double seconds = std::chrono::duration<double>(Clock::now() - begin_).count();
  return {{"seed", options_.seed},
          {"seconds", seconds},
          {"generations_total", generations_},
          {"operations_total", total},
          {"operations_per_second", static_cast<double>(total) / seconds},
          {"operations", std::move(operations)},
          {"worst_operation", worst},
          {"worst_us", worst_us},
          {"checked_pages_total", tally.checked_pages.load()},
          {"checked_bytes_total", tally.checked_pages * kPageSize},
          {"wrong_pages_total", tally.wrong_pages.load()},
          {"wrong_bytes_total", tally.wrong_bytes.load()},
          {"hangs_total", tally.hangs.load()},
          {"children_total", tally.children.load()},
          {"children_killed_total", tally.children_killed.load()},
          {"children_executed_total", tally.children_executed.load()},
          {"children_raced_total", tally.children_raced.load()},
          {"children_failed_total", tally.children_failed.load()},
          {"child_operations_total", tally.child_operations.load()},
          {"child_checked_pages_total", tally.child_checked_pages.load()}};
}

}  // namespace

Failure RunChurn(const ChurnOptions& options,
                 const std::function<void(const nlohmann::ordered_json&)>& give_up,
                 nlohmann::ordered_json* result) {
  Tally* tally = Tally::Create();
  if (tally == nullptr) return SystemFailure("cannot share memory with children");
  Churn churn(options, tally, give_up);
  Failure failure = churn.Run();
  *result = churn.Result();
  return failure;
}

}  // namespace faultline::churn
