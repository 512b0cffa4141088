// SPDX-License-Identifier: Apache-2.0
//
// What `faultline top` shows, from two looks at an agent's attachments. Pure functions.
#ifndef FAULTLINE_CLIENT_CLI_TOP_H_
#define FAULTLINE_CLIENT_CLI_TOP_H_

#include <chrono>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "client/attachment.h"

namespace faultline {

// One look.
struct TopSample {
  std::chrono::steady_clock::time_point when;
  std::vector<AttachmentStats> attachments;
};

// An attachment and how fast it is; 0 where it was not there before.
struct TopRow {
  AttachmentStats stats;
  double faults_per_second = 0;
  double filled_bytes_per_second = 0;
  double fetched_bytes_per_second = 0;
  double written_bytes_per_second = 0;
  double events_per_second = 0;  // fork, remap, remove, unmap
};

// Those of `after`, in its order.
std::vector<TopRow> TopRows(const TopSample& before, const TopSample& after);

enum class TopColour { kNone, kAnsi };

struct TopScreen {
  size_t lines, columns;  // what is beyond is left out
  TopColour colour = TopColour::kNone;
};

// A heading of totals, and a line for each row; each ends in a newline. What is no printable ASCII
// in a volume's name is shown as "?".
std::string DrawTop(std::span<const TopRow> rows, const std::string& title,
                    const TopScreen& screen);

nlohmann::ordered_json TopToJson(std::span<const TopRow> rows);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_CLI_TOP_H_
