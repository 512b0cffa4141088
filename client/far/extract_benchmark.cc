// SPDX-License-Identifier: Apache-2.0
//
// What it costs to take pages out of another process by its eviction helper: for batches of several
// sizes, whose pages follow each other or do not, and with a target that sleeps or has a thread on
// every processor, which each have to be told that pages are gone. Prints the median of the rounds,
// in microseconds a page, and the fastest and the slowest; and the median of the processor time of
// both ends together, which is less than the time where one end waits for the other, and the more
// telling figure where the machine has other work. Not a test: nothing is judged.
//
//   far_extract_benchmark [ROUNDS]
#include <gtest/gtest.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "client/far/far_testing.h"

namespace faultline {
namespace {

constexpr size_t kPages = 8192;
constexpr size_t kMaxPages = 2048;  // of one measurement

class Bench {
 public:
  Bench() : process_(kPages, "") {
    uffd_ = *AdoptUffd(process_.TakeUffd());
    extractor_ =
        *HelperExtractor::Open({process_.DuplicateCommand(), process_.OpenPidfd(), uffd_.get()});
  }

  void SpinOnEveryProcessor() {
    for (long i = 0; i < sysconf(_SC_NPROCESSORS_ONLN); ++i) process_.Do("spin");
  }

  // In microseconds a page.
  struct Cost {
    double time, processor_time;
  };
  // Of batches of every `step`-th page. Fills all pages first.
  Cost Measure(size_t batch, size_t step) {
    Fill();
    const uint64_t start = process_.hello().memory_start;
    std::vector<uint64_t> addresses(batch);
    std::vector<Extraction> outcomes(batch);
    size_t next = 0, taken = 0;
    std::chrono::nanoseconds time{0};
    const double cpu_before = ProcessorTime();
    while (taken < kMaxPages && next + batch * step <= kPages) {
      for (size_t i = 0; i < batch; ++i) addresses[i] = start + (next + i * step) * kPageSize;
      const auto before = std::chrono::steady_clock::now();
      const absl::Status status = extractor_->Extract(addresses, outcomes, bytes_.data());
      time += std::chrono::steady_clock::now() - before;
      if (!status.ok() || std::count(outcomes.begin(), outcomes.end(), Extraction::kTaken) !=
                              static_cast<ptrdiff_t>(batch)) {
        fprintf(stderr, "not taken: %s\n", status.ToString().c_str());
        exit(1);
      }
      next += batch * step;
      taken += batch;
    }
    const double pages = static_cast<double>(taken);
    return {static_cast<double>(time.count()) / 1e3 / pages,
            (ProcessorTime() - cpu_before) / pages};
  }

 private:
  // Of this thread and of the target, in microseconds.
  double ProcessorTime() const {
    clockid_t target;
    timespec here = {}, there = {};
    clock_getcpuclockid(process_.pid(), &target);
    clock_gettime(target, &there);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &here);
    return static_cast<double>(here.tv_sec + there.tv_sec) * 1e6 +
           static_cast<double>(here.tv_nsec + there.tv_nsec) / 1e3;
  }

  void Fill() {
    const std::vector<std::byte> page(kPageSize, std::byte{7});
    for (size_t i = 0; i < kPages; ++i) {
      const uint64_t address = process_.hello().memory_start + i * kPageSize;
      const FillResult result = uffd_->Copy(address, page);
      if (result.error != 0 && result.error != EEXIST) {
        fprintf(stderr, "not filled: %s\n", strerror(result.error));
        exit(1);
      }
    }
  }

  FarProcess process_;
  std::unique_ptr<Uffd> uffd_;
  std::unique_ptr<HelperExtractor> extractor_;
  std::vector<std::byte> bytes_ = std::vector<std::byte>(PageExtractor::kMaxBatch * kPageSize);
};

void Run(int rounds) {
  Bench sleeping, busy;
  busy.SpinOnEveryProcessor();
  struct Case {
    std::string name;
    Bench* bench;
    size_t batch, step;
    std::vector<double> times, processor_times;
  };
  std::vector<Case> cases;
  for (const size_t batch : {1, 8, 64, 256}) {
    for (const size_t step : {1, 2}) {
      if (batch == 1 && step > 1) continue;
      const std::string pages = step == 1 ? "in a row" : "scattered";
      cases.push_back({"target sleeps, " + pages, &sleeping, batch, step, {}, {}});
      cases.push_back({"target spins,  " + pages, &busy, batch, step, {}, {}});
    }
  }
  for (int i = 0; i < rounds; ++i) {
    for (Case& c : cases) {
      const Bench::Cost cost = c.bench->Measure(c.batch, c.step);
      c.times.push_back(cost.time);
      c.processor_times.push_back(cost.processor_time);
    }
  }
  printf("%-26s %5s %9s %9s %9s %10s %9s\n", "", "batch", "us/page", "fastest", "slowest",
         "pages/s", "processor");
  for (Case& c : cases) {
    std::sort(c.times.begin(), c.times.end());
    std::sort(c.processor_times.begin(), c.processor_times.end());
    const size_t middle = c.times.size() / 2;
    printf("%-26s %5zu %9.2f %9.2f %9.2f %10.0f", c.name.c_str(), c.batch, c.times[middle],
           c.times.front(), c.times.back(), 1e6 / c.times[middle]);
    // That of a target that spins is no part of it.
    if (c.bench == &sleeping) printf(" %9.2f", c.processor_times[middle]);
    printf("\n");
  }
}

}  // namespace
}  // namespace faultline

int main(int argc, char** argv) { faultline::Run(argc > 1 ? atoi(argv[1]) : 5); }
