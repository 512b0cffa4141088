// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_SIMULATE_ACCESS_PATTERN_H_
#define FAULTLINE_CLIENT_SIMULATE_ACCESS_PATTERN_H_

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <cstdint>

#include "client/simulate/access.h"

namespace faultline {

// Kinds of programs, as the pages that they touch.
struct AccessPattern {
  absl::string_view name;
  absl::string_view description;
};

inline constexpr AccessPattern kAccessPatterns[] = {
    {"seq", "all pages in ascending order, again and again"},
    {"reverse", "in descending order"},
    {"stride", "every 7th page"},
    {"streams", "four places that are walked through by turns"},
    {"runs", "six pages in a row, anywhere"},
    {"random", "any page, each as likely as another"},
    {"zipf", "few pages often, most of them rarely: ranks by the zipf distribution of .99"},
    {"scan-zipf", "seq and zipf by turns"},
    {"phases", "zipf, with other pages in front four times"},
    {"drift", "near a place that moves slowly: within 200 or within 4000 pages"},
};

struct PatternOptions {
  PageCount pages{16384};
  uint64_t accesses = 160'000;
  uint64_t seed = 1;
  double write_share = 0;  // of the accesses
};

// The same options give the same accesses. INVALID_ARGUMENT, with the known names, for an unknown
// one, and for no pages or too many.
absl::StatusOr<AccessSequence> GenerateAccesses(absl::string_view pattern,
                                                const PatternOptions& options);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_SIMULATE_ACCESS_PATTERN_H_
