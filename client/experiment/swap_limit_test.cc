// SPDX-License-Identifier: Apache-2.0
#include "client/experiment/swap_limit.h"

#include <gtest/gtest.h>

namespace faultline::experiment {
namespace {

constexpr char kLegacyMounts[] =
    "22 26 0:21 / /proc rw,nosuid shared:12 - proc proc rw\n"
    "34 29 0:29 / /sys/fs/cgroup/cpu rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
    "38 29 0:33 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory\n"
    "39 29 0:34 / /sys/fs/cgroup/unified rw,nosuid shared:10 - cgroup2 cgroup2 rw\n";

TEST(FindMemoryGroups, OfVersionOneIsBelowTheGroupOfThisProcess) {
  const auto groups =
      FindMemoryGroups("5:cpu,cpuacct:/\n4:memory:/some/group\n0::/\n", kLegacyMounts);
  ASSERT_TRUE(groups.ok()) << groups.status();
  EXPECT_EQ(groups->directory, "/sys/fs/cgroup/memory/some/group");
  EXPECT_EQ(groups->limit, "memory.limit_in_bytes");
  EXPECT_FALSE(groups->unified);
  EXPECT_EQ(FindMemoryGroups("4:memory:/\n0::/\n", kLegacyMounts)->directory,
            "/sys/fs/cgroup/memory");
}

// In a container the mount may begin at the very group.
TEST(FindMemoryGroups, OfVersionOneMayBeMountedFromWithin) {
  const auto groups = FindMemoryGroups(
      "4:memory:/docker/abc\n",
      "38 29 0:33 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n");
  ASSERT_TRUE(groups.ok()) << groups.status();
  EXPECT_EQ(groups->directory, "/sys/fs/cgroup/memory");
}

TEST(FindMemoryGroups, OfVersionTwoIsBelowTheRoot) {
  const auto groups = FindMemoryGroups(
      "0::/user.slice/session-1.scope\n",
      "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n");
  ASSERT_TRUE(groups.ok()) << groups.status();
  EXPECT_EQ(groups->directory, "/sys/fs/cgroup");
  EXPECT_EQ(groups->limit, "memory.max");
  EXPECT_TRUE(groups->unified);
}

TEST(FindMemoryGroups, IsToldWhereThereAreNone) {
  EXPECT_TRUE(absl::IsNotFound(FindMemoryGroups("", "").status()));
  EXPECT_TRUE(absl::IsNotFound(
      FindMemoryGroups("0::/\n", "22 26 0:21 / /proc rw - proc proc rw\n").status()));
}

}  // namespace
}  // namespace faultline::experiment
