// SPDX-License-Identifier: Apache-2.0
#include "client/vm/vm_progress.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>

#include <algorithm>
#include <cmath>

#include <nlohmann/json.hpp>

#include "proto/page.h"
#include "proto/units.h"

namespace faultline {

void VmProgress::Add(const AttachmentStats& stats, absl::Time now) {
  stats_ = stats;
  const uint64_t there = stats.present_pages + stats.poisoned_pages + stats.zero_pages;
  left_ = stats.tracked_pages - std::min(there, stats.tracked_pages);
  if (first_ == absl::InfiniteFuture()) {
    first_ = now;
    first_left_ = left_;
  }
  last_ = now;
}

double VmProgress::PagesPerSecond() const {
  const double seconds = absl::ToDoubleSeconds(last_ - first_);
  if (seconds <= 0 || left_ >= first_left_) return 0;
  return static_cast<double>(first_left_ - left_) / seconds;
}

std::string VmProgress::Text() const {
  const double rate = PagesPerSecond();
  const uint64_t total = std::max<uint64_t>(stats_.tracked_pages, 1);
  std::string text = absl::StrFormat("%3d%% of %s  %d pages left", 100 * (total - left_) / total,
                                     FormatBytes(total * kPageSize), left_);
  if (rate > 0) {
    absl::StrAppendFormat(&text, "  %.0fMiB/s  %.0fs left", rate * kPageSize / (1 << 20),
                          std::ceil(static_cast<double>(left_) / rate));
  }
  absl::StrAppendFormat(&text, "  faults %d, p50 %.0fus, p99 %.0fus", stats_.faults_total,
                        stats_.fault_p50_us, stats_.fault_p99_us);
  return text;
}

nlohmann::ordered_json VmProgress::Json() const {
  const double rate = PagesPerSecond();
  nlohmann::ordered_json json = {{"pages_left", left_}, {"bytes_per_second", rate * kPageSize}};
  if (rate > 0) json["seconds_left"] = static_cast<double>(left_) / rate;
  json["faults_total"] = stats_.faults_total;
  json["fault_p50_us"] = stats_.fault_p50_us;
  json["fault_p99_us"] = stats_.fault_p99_us;
  return json;
}

}  // namespace faultline
