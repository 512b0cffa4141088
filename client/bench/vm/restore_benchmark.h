// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_BENCH_VM_RESTORE_BENCHMARK_H_
#define FAULTLINE_CLIENT_BENCH_VM_RESTORE_BENCHMARK_H_

#include <absl/status/statusor.h>

#include <string>

#include "client/bench/report.h"
#include "client/bench/vm/guest.h"

namespace faultline::bench {

struct RestoreBenchOptions {
  GuestOptions guest;
  int repetitions = 5;
  std::string directory;  // of RAM, sockets and the local copy; on a tmpfs
  std::string store;      // parent of the page server's store; empty: /var/tmp
};

// Saves a machine once, and restores it again and again: by vm restore, first with nothing known of
// it and then with its working set recorded, four at once, and by QEMU alone from a file that is in
// memory. DATA_LOSS where a word was wrong.
absl::StatusOr<Report> RestoreVms(const RestoreBenchOptions& options);

}  // namespace faultline::bench

#endif  // FAULTLINE_CLIENT_BENCH_VM_RESTORE_BENCHMARK_H_
