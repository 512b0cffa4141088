// SPDX-License-Identifier: Apache-2.0
//
// Sizes, durations and speeds as people write them in flags and config files. Thread-safe.
#ifndef FAULTLINE_PROTO_UNITS_H_
#define FAULTLINE_PROTO_UNITS_H_

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>
#include <absl/time/time.h>

#include <cstdint>
#include <string>

namespace faultline {

// Parses a whole number of bytes: "4096", "64KiB", "256MiB", "1GiB", "2TiB", "1PiB"; a single
// letter (K, M, G, T, P) means the same as with "iB". INVALID_ARGUMENT, naming `text` and what is
// allowed, for anything else and for what does not fit into 64 bits.
absl::StatusOr<uint64_t> ParseBytes(absl::string_view text);

// The form that ParseBytes reads where `bytes` is a whole number of some unit ("256MiB"), otherwise
// rounded to one decimal, for people ("1.4GiB").
std::string FormatBytes(uint64_t bytes);
// The form that ParseBytes reads, never rounded: for flags that are passed on.
std::string FormatExactBytes(uint64_t bytes);

// Parses a duration that is not negative: "0", "500ms", "10s", "1m30s", "2h". INVALID_ARGUMENT for
// anything else.
absl::StatusOr<absl::Duration> ParseDuration(absl::string_view text);

// Parses the speed of a link, "2500kbit", "100mbit" or "1gbit": bits of 10^3, 10^6, 10^9 per
// second, at most 1000gbit. The result is in bytes per second. INVALID_ARGUMENT for anything else.
absl::StatusOr<uint64_t> ParseBitRate(absl::string_view text);

// The form that ParseBitRate reads, rounded down to whole kilobits.
std::string FormatBitRate(uint64_t bytes_per_second);

}  // namespace faultline

#endif  // FAULTLINE_PROTO_UNITS_H_
