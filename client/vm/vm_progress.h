// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_VM_VM_PROGRESS_H_
#define FAULTLINE_CLIENT_VM_VM_PROGRESS_H_

#include <absl/time/time.h>

#include <cstdint>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "client/attachment.h"

namespace faultline {

// How far the RAM of a machine is, from looks at its attachment.
class VmProgress {
 public:
  // A further look; the first one is the beginning.
  void Add(const AttachmentStats& stats, absl::Time now);

  uint64_t pages_left() const { return left_; }
  // As "31% of 512MiB  90112 pages left  171MiB/s  2s left  faults 812, p50 180us, p99 900us".
  std::string Text() const;
  // "pages_left", "bytes_per_second", "seconds_left" (where it can be told), "faults_total",
  // "fault_p50_us", "fault_p99_us".
  nlohmann::ordered_json Json() const;

 private:
  double PagesPerSecond() const;

  AttachmentStats stats_;
  uint64_t left_ = 0;
  uint64_t first_left_ = 0;
  absl::Time first_ = absl::InfiniteFuture();
  absl::Time last_;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_VM_VM_PROGRESS_H_
