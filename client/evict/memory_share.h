// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_EVICT_MEMORY_SHARE_H_
#define FAULTLINE_CLIENT_EVICT_MEMORY_SHARE_H_

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <string>

#include "proto/page.h"

namespace faultline {

// An amount of memory as flags have it: "64MiB", or a part of something, "25%" or "12.5%".
class MemoryShare {
 public:
  static MemoryShare Pages(PageCount pages) { return MemoryShare(pages, 0, false); }
  // REQUIRES: 0 <= percent <= 100.
  static MemoryShare Percent(double percent) { return MemoryShare(PageCount(0), percent, true); }

  // In pages, where the whole has `whole`: a percentage is rounded down.
  PageCount Of(PageCount whole) const;

  // The form that ParseMemoryShare() reads.
  std::string ToString() const;

 private:
  MemoryShare(PageCount pages, double percent, bool is_percent)
      : pages_(pages), percent_(percent), is_percent_(is_percent) {}

  PageCount pages_;
  double percent_;
  bool is_percent_;
};

// INVALID_ARGUMENT, naming `text`, for what is neither of both, for a size that is no multiple of
// 4 KiB, and for more than 100 %.
absl::StatusOr<MemoryShare> ParseMemoryShare(absl::string_view text);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_EVICT_MEMORY_SHARE_H_
