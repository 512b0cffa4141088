// SPDX-License-Identifier: Apache-2.0
#include "client/attachment_metrics.h"

#include <absl/strings/match.h>

#include <type_traits>
#include <vector>

namespace faultline {

void AttachmentMetrics::AddTotals(const AttachmentMetrics& ended) {
  std::vector<double> totals;
  VisitFields(ended.stats, [&totals](const char* name, const auto& field) {
    if constexpr (std::is_arithmetic_v<std::decay_t<decltype(field)>>) {
      if (absl::EndsWith(name, "_total")) totals.push_back(static_cast<double>(field));
    }
  });
  auto total = totals.begin();
  VisitFields(stats, [&total](const char* name, auto& field) {
    using Field = std::decay_t<decltype(field)>;
    if constexpr (std::is_arithmetic_v<Field>) {
      if (!absl::EndsWith(name, "_total")) return;
      field = static_cast<Field>(static_cast<double>(field) + *total++);
    }
  });
  for (size_t i = 0; i < fault_latency.size(); ++i) fault_latency[i] += ended.fault_latency[i];
  map += ended.map;
  resolve += ended.resolve;
  answer += ended.answer;
  fill += ended.fill;
  wire += ended.wire;
  server += ended.server;
  store += ended.store;
  write += ended.write;
}

}  // namespace faultline
