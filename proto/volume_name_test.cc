// SPDX-License-Identifier: Apache-2.0
#include "proto/volume_name.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace faultline {
namespace {

using testing::HasSubstr;

TEST(VolumeName, NamesThatAreSafeEverywhereAreTaken) {
  for (const char* good : {"a", "vm-1.img", "_x", "0"}) {
    EXPECT_EQ(CheckVolumeName(good), absl::OkStatus()) << good;
  }
  EXPECT_EQ(CheckVolumeName(std::string(128, 'a')), absl::OkStatus());
}

TEST(VolumeName, OthersAreRefusedWithWhatIsAllowed) {
  for (const std::string& bad :
       {std::string(), std::string(".a"), std::string("-a"), std::string("a/b"), std::string("a b"),
        std::string("a\0b", 3), std::string("\xc3\xa4"), std::string("\xff"), std::string(129, 'a'),
        std::string(10'000, 'a')}) {
    const absl::Status status = CheckVolumeName(bad);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad;
    EXPECT_THAT(std::string(status.message()), HasSubstr("allowed are 1 to 128 letters")) << bad;
    EXPECT_LT(status.message().size(), 1000u);
  }
}

}  // namespace
}  // namespace faultline
