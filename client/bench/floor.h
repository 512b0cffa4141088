// SPDX-License-Identifier: Apache-2.0
//
// The floor: what this machine cannot go below. Every figure of `faultline bench` is quoted as a
// ratio to one of these, taken in the same run.
#ifndef FAULTLINE_CLIENT_BENCH_FLOOR_H_
#define FAULTLINE_CLIENT_BENCH_FLOOR_H_

#include <absl/status/statusor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "client/bench/limited_link.h"
#include "proto/page.h"

namespace faultline {

// Microseconds of each of `touches`, one thread's, of pages of a memory of `pages` pages. Faults
// are served by a handler thread with 4 KiB from a blocking TCP socket on loopback: a pager with no
// RPC layer, no checksums and no store. REQUIRES: at least one touch.
absl::StatusOr<std::vector<double>> MeasureUffdTcp(PageCount pages,
                                                   const std::vector<uint64_t>& touches);

// MiB/s at which `bytes`, rounded up to 256 KiB, go through one TCP connection on loopback, in
// writes of that size. Through a link of its own where `link` limits anything.
absl::StatusOr<double> MeasureTcpStream(uint64_t bytes, const bench::LinkOptions& link);

// MiB/s at which `source` is written to a new file in `directory` in blocks of 1 MiB, fsync
// included, as dd bs=1M conv=fsync does. The file is removed.
absl::StatusOr<double> MeasureDiskWrite(const std::string& source, const std::string& directory);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_BENCH_FLOOR_H_
