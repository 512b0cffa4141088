// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_BENCH_VM_VM_BENCHMARK_H_
#define FAULTLINE_CLIENT_BENCH_VM_VM_BENCHMARK_H_

#include <absl/status/statusor.h>

#include <cstdint>
#include <vector>

#include "client/bench/report.h"
#include "client/bench/vm/move.h"

namespace faultline::bench {

struct VmBenchOptions {
  MoveOptions move;
  int repetitions = 5;
  uint64_t link_bytes_per_second = 0;  // 0: loopback as it is
  std::vector<MoveMode> modes;         // besides Faultline's; that alone: nothing
};

// Moves a machine in each of the modes in turn, as often as `repetitions` says. Enters a network
// namespace where the link is limited, and stays there. DATA_LOSS where a word was wrong.
absl::StatusOr<Report> MoveVms(const VmBenchOptions& options);

}  // namespace faultline::bench

#endif  // FAULTLINE_CLIENT_BENCH_VM_VM_BENCHMARK_H_
