// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_CHURN_PATTERN_VOLUME_H_
#define FAULTLINE_CLIENT_CHURN_PATTERN_VOLUME_H_

#include <cstdint>
#include <optional>
#include <string>

namespace faultline::churn {

// The content of a volume for a churn of this seed. One byte of `wrong_page` is another: what the
// churn must find.
std::string MakePatternVolume(uint64_t seed, uint64_t pages, std::optional<uint64_t> wrong_page);

}  // namespace faultline::churn

#endif  // FAULTLINE_CLIENT_CHURN_PATTERN_VOLUME_H_
