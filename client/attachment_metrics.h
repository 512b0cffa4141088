// SPDX-License-Identifier: Apache-2.0
//
// What is exported of attachments: their stats, and latencies that can be added up. Plain values.
#ifndef FAULTLINE_CLIENT_ATTACHMENT_METRICS_H_
#define FAULTLINE_CLIENT_ATTACHMENT_METRICS_H_

#include <array>
#include <cstdint>
#include <limits>
#include <vector>

#include "client/attachment.h"
#include "proto/latency_histogram.h"

namespace faultline {

struct AttachmentMetrics {
  AttachmentStats stats;           // without quantiles, which are 0
  double oldest_park_seconds = 0;  // how long the fill waits that was held off the longest
  bool draining = false;           // and not done
  uint64_t drain_left_pages = 0;
  // At the mean speed since the drain began; not a number where that is not known.
  double drain_left_seconds = std::numeric_limits<double>::quiet_NaN();

  std::array<LatencyCounts, kFaultClasses> fault_latency;
  // The stages of AttachmentStats. Of those of the source, a forked child has none: it shares its
  // parent's source.
  LatencyCounts map, resolve, answer, fill, wire, server, store;
  LatencyCounts write;  // of far memory

  // Adds what `ended` has counted; its state is left out.
  void AddTotals(const AttachmentMetrics& ended);
};

struct PagerMetrics {
  uint64_t attachments_total = 0;       // that have begun, forked children included
  AttachmentMetrics ended;              // all that have ended, added up
  std::vector<AttachmentMetrics> live;  // the others, ordered by id
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_ATTACHMENT_METRICS_H_
