// SPDX-License-Identifier: Apache-2.0
//
// The floor: what this machine cannot go below. Every figure of `faultline bench` is quoted as a
// ratio to one of these, taken in the same run.
#ifndef FAULTLINE_CLIENT_BENCH_FLOOR_H_
#define FAULTLINE_CLIENT_BENCH_FLOOR_H_

#include <absl/status/statusor.h>

#include <string>
#include <vector>

#include "proto/page.h"

namespace faultline {

// Microseconds of each of `pages` faults of one thread, in random order, that a handler thread
// serves with 4 KiB from a blocking TCP socket on loopback: a pager with no RPC layer, no
// checksums and no store.
absl::StatusOr<std::vector<double>> MeasureUffdTcp(PageCount pages);

// MiB/s at which `source` is written to a new file in `directory` in blocks of 1 MiB, fsync
// included, as dd bs=1M conv=fsync does. The file is removed.
absl::StatusOr<double> MeasureDiskWrite(const std::string& source, const std::string& directory);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_BENCH_FLOOR_H_
