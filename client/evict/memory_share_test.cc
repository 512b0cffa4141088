// SPDX-License-Identifier: Apache-2.0
#include "client/evict/memory_share.h"

#include <gtest/gtest.h>

namespace faultline {
namespace {

TEST(MemoryShare, IsASizeOrAPartOfSomething) {
  EXPECT_EQ(ParseMemoryShare("64MiB")->Of(PageCount(7)), PageCount(16384));
  EXPECT_EQ(ParseMemoryShare("25%")->Of(PageCount(16384)), PageCount(4096));
  EXPECT_EQ(ParseMemoryShare("12.5%")->Of(PageCount(100)), PageCount(12));
  EXPECT_EQ(ParseMemoryShare("0")->Of(PageCount(100)), PageCount(0));
  EXPECT_EQ(ParseMemoryShare("100%")->Of(PageCount(kMaxVolumePages)), PageCount(kMaxVolumePages));
  for (const char* text : {"64MiB", "58880KiB", "25%", "12.5%"}) {
    EXPECT_EQ(ParseMemoryShare(text)->ToString(), text);
  }
}

TEST(MemoryShare, WhatIsNeitherIsRefused) {
  for (const char* text : {"", "%", "-1%", "101%", "nan%", "inf%", "25 percent", "5000", "a lot"}) {
    const auto share = ParseMemoryShare(text);
    EXPECT_EQ(share.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_NE(share.status().message().find(text), absl::string_view::npos) << share.status();
  }
}

}  // namespace
}  // namespace faultline
