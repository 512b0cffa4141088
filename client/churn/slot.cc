// SPDX-License-Identifier: Apache-2.0
#include "client/churn/slot.h"

#include <algorithm>
#include <cinttypes>
#include <cstdio>

namespace faultline::churn {

uint64_t Slot::bytes() const { return pages * kPageSize; }

uint64_t Slot::AddressOf(uint32_t page) const { return address + page * kPageSize; }

void Slot::DescribeHistory(char* text, size_t size) const {
  text[0] = '\0';
  size_t used = 0;
  const uint32_t known = std::min<uint32_t>(events, static_cast<uint32_t>(history.size()));
  for (uint32_t i = 0; i < known; ++i) {
    const Event& event = history[(events - 1 - i) % history.size()];
    const int n =
        snprintf(text + used, size - used, "%s%s #%" PRIu64 "%s pages %u+%u at %" PRIx64 "%s",
                 i == 0 ? "" : "; ", OperationName(event.operation).data(), event.number,
                 event.depth > 0 ? " (in a child)" : "", event.first, event.count, event.address,
                 event.refused ? " refused" : "");
    if (n < 0 || static_cast<size_t>(n) >= size - used) return;
    used += static_cast<size_t>(n);
  }
}

}  // namespace faultline::churn
