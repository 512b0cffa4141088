// SPDX-License-Identifier: Apache-2.0
#include "client/evict/memory_share.h"

#include <absl/strings/match.h>
#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/strip.h>

#include "proto/units.h"

namespace faultline {

PageCount MemoryShare::Of(PageCount whole) const {
  if (!is_percent_) return pages_;
  return PageCount(static_cast<uint64_t>(static_cast<double>(whole.raw()) * percent_ / 100));
}

std::string MemoryShare::ToString() const {
  return is_percent_ ? absl::StrCat(percent_, "%") : FormatExactBytes(pages_.in_bytes());
}

absl::StatusOr<MemoryShare> ParseMemoryShare(absl::string_view text) {
  if (absl::string_view number = text; absl::ConsumeSuffix(&number, "%")) {
    double percent = 0;
    // Written so that what is no number is refused, too.
    if (!absl::SimpleAtod(number, &percent) || !(percent >= 0 && percent <= 100)) {
      return absl::InvalidArgumentError(absl::StrCat("\"", text, "\" is not between 0% and 100%"));
    }
    return MemoryShare::Percent(percent);
  }
  const absl::StatusOr<uint64_t> bytes = ParseBytes(text);
  if (!bytes.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(bytes.status().message(), ", or a share: 25%"));
  }
  if (!IsPageAligned(*bytes)) {
    return absl::InvalidArgumentError(absl::StrCat(text, " is no multiple of 4KiB"));
  }
  return MemoryShare::Pages(PageCount::CoveringBytes(*bytes));
}

}  // namespace faultline
