// SPDX-License-Identifier: Apache-2.0
#include "client/churn/pattern_volume.h"

#include "client/churn/pattern.h"

namespace faultline::churn {

std::string MakePatternVolume(uint64_t seed, uint64_t pages, std::optional<uint64_t> wrong_page) {
  const Pattern pattern(seed);
  std::string content(pages * kPageSize, '\0');
  for (uint64_t page = 0; page < pages; ++page) {
    pattern.Fill({.kind = Stamp::kVolume, .number = page},
                 reinterpret_cast<std::byte*>(content.data()) + page * kPageSize);
  }
  if (wrong_page.has_value()) content[*wrong_page * kPageSize + kPageSize / 3] ^= 1;
  return content;
}

}  // namespace faultline::churn
