// SPDX-License-Identifier: Apache-2.0
#include "client/vm/vm_progress.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace faultline {
namespace {

AttachmentStats Look(uint64_t present) {
  AttachmentStats stats;
  stats.tracked_pages = 131072;
  stats.present_pages = present;
  stats.faults_total = 812;
  stats.fault_p50_us = 180;
  stats.fault_p99_us = 900.4;
  return stats;
}

TEST(VmProgress, TellsWhatIsLeftHowFastAndForHowLong) {
  const absl::Time start = absl::FromUnixSeconds(1);
  VmProgress progress;
  progress.Add(Look(0), start);
  EXPECT_EQ(progress.Text(), "  0% of 512MiB  131072 pages left  faults 812, p50 180us, p99 900us");
  progress.Add(Look(65536), start + absl::Seconds(2));
  EXPECT_EQ(
      progress.Text(),
      " 50% of 512MiB  65536 pages left  128MiB/s  2s left  faults 812, p50 180us, p99 900us");
  EXPECT_EQ(progress.Json()["seconds_left"], 2.0);
  progress.Add(Look(131072), start + absl::Seconds(3));
  EXPECT_EQ(progress.pages_left(), 0u);
}

// Memory may come to be tracked, or a page be discarded: what is left can grow.
TEST(VmProgress, GivesNoTimeWhereNothingComesNearer) {
  VmProgress progress;
  progress.Add(Look(1000), absl::FromUnixSeconds(1));
  progress.Add(Look(900), absl::FromUnixSeconds(2));
  EXPECT_EQ(progress.Json().count("seconds_left"), 0u);
  progress.Add({}, absl::FromUnixSeconds(3));
  EXPECT_EQ(progress.pages_left(), 0u);
}

}  // namespace
}  // namespace faultline
