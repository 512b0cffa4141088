// SPDX-License-Identifier: Apache-2.0
#include "client/uffd/kernel_probe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/utsname.h>

#include "client/uffd/test_memory.h"

namespace faultline {
namespace {

using testing::AnyOf;
using testing::HasSubstr;
using testing::StartsWith;

ProbeTry Complete() {
  ProbeTry seen;
  seen.pages = 100;
  seen.filled_all = seen.event_read = true;
  return seen;
}

TEST(KernelProbe, AFillThatGoesOnBesideAnUnreadEventIsNotExcluded) {
  ProbeTry seen = Complete();
  seen.pages_at_event = 99;
  EXPECT_EQ(Judge(seen), false);
  // Whatever was seen before: serving such a kernel in parallel would lose bytes.
  seen.blocked_samples = 10;
  EXPECT_EQ(Judge(seen), false);
}

TEST(KernelProbe, ADiscardThatWaitsForTheFillIsExcluded) {
  ProbeTry seen = Complete();
  seen.blocked_samples = 2;
  EXPECT_EQ(Judge(seen), true);
  // The fill was done, its thread had not yet said so.
  seen.pages_at_event = 100;
  EXPECT_EQ(Judge(seen), true);
}

TEST(KernelProbe, WhatThreadsThatDidNotRunLeaveBehindIsNotConclusive) {
  EXPECT_EQ(Judge(Complete()), std::nullopt);
  // The event came after the fill: so it does where madvise just began late.
  ProbeTry late = Complete();
  late.pages_at_event = 100;
  EXPECT_EQ(Judge(late), std::nullopt);
  ProbeTry once = Complete();
  once.blocked_samples = 1;
  EXPECT_EQ(Judge(once), std::nullopt);
  // A fill that was cut short may have let go of its locks in between.
  ProbeTry partial = Complete();
  partial.filled_all = false;
  partial.pages_at_event = 50;
  partial.blocked_samples = 5;
  EXPECT_EQ(Judge(partial), std::nullopt);
  ProbeTry silent = Complete();
  silent.event_read = false;
  silent.blocked_samples = 5;
  EXPECT_EQ(Judge(silent), std::nullopt);
}

TEST(KernelProbe, ReleasesFrom6Point9OnExcludeEvents) {
  EXPECT_TRUE(ReleaseExcludesEvents("6.9.0"));
  EXPECT_TRUE(ReleaseExcludesEvents("6.18.44-fc-v669"));
  EXPECT_TRUE(ReleaseExcludesEvents("7.0-rc1"));
  EXPECT_FALSE(ReleaseExcludesEvents("6.8.12-amd64"));
  EXPECT_FALSE(ReleaseExcludesEvents("6.1.0-37-cloud-amd64"));
  EXPECT_FALSE(ReleaseExcludesEvents("5.15"));
  EXPECT_FALSE(ReleaseExcludesEvents("rolling"));
}

TEST(KernelProbe, TheRunningKernelIsWhatItsReleaseSays) {
  FAULTLINE_REQUIRE_UFFD();
  utsname name{};
  ASSERT_EQ(uname(&name), 0);
  const KernelProbe probe = ProbeKernel();
  // Distributions may have moved the change to older releases, but nobody has taken it out.
  if (ReleaseExcludesEvents(name.release)) {
    EXPECT_TRUE(probe.fills_exclude_events) << probe.evidence;
  }
  EXPECT_THAT(probe.evidence,
              AnyOf(StartsWith("seen: "), HasSubstr(std::string(name.release) + ": none of")));
}

}  // namespace
}  // namespace faultline
