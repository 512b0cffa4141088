// SPDX-License-Identifier: Apache-2.0
#include "client/attachment.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace faultline {
namespace {

using testing::HasSubstr;

constexpr PageCount kVolume{100};

std::string MessageOf(const std::vector<Mapping>& mappings) {
  return std::string(CheckMappings(mappings, kVolume).message());
}

TEST(CheckMappings, GoodMappingsPass) {
  EXPECT_TRUE(CheckMappings({{0x10000, 0x10000, 0}, {0x20000, 0x54000, 0x10000}}, kVolume).ok());
}

TEST(CheckMappings, EachMistakeIsNamed) {
  EXPECT_THAT(MessageOf({}), HasSubstr("no mappings"));
  EXPECT_THAT(MessageOf({{0x10000, 0, 0}}), HasSubstr("size is 0"));
  EXPECT_THAT(MessageOf({{0x10001, 0x1000, 0}}), HasSubstr("address is not a multiple of 4096"));
  EXPECT_THAT(MessageOf({{0x10000, 0x1001, 0}}), HasSubstr("size is not a multiple of 4096"));
  EXPECT_THAT(MessageOf({{0x10000, 0x1000, 5}}), HasSubstr("offset is not a multiple of 4096"));
  EXPECT_THAT(MessageOf({{~uint64_t{0} - 0xfff, 0x2000, 0}}), HasSubstr("beyond the last address"));
  EXPECT_THAT(MessageOf({{0x10000, 0x65000, 0}}), HasSubstr("beyond the volume's 409600 bytes"));
  EXPECT_THAT(MessageOf({{0x10000, 0x1000, uint64_t{1} << 62}}), HasSubstr("beyond the volume's"));
  EXPECT_THAT(MessageOf({{0x20000, 0x1000, 0}, {0x10000, 0x11000, 0x1000}}),
              HasSubstr("overlap in their addresses"));
  EXPECT_THAT(MessageOf({{0x20000, 0x2000, 0}, {0x40000, 0x2000, 0x1000}}),
              HasSubstr("overlap in the volume"));
}

TEST(FaultPolicy, NamesAreParsedBack) {
  for (FaultPolicy policy : {FaultPolicy::kWait, FaultPolicy::kPoison, FaultPolicy::kKill}) {
    EXPECT_EQ(*ParseFaultPolicy(FaultPolicyName(policy)), policy);
  }
  EXPECT_THAT(std::string(ParseFaultPolicy("zero").status().message()),
              HasSubstr("unknown fault policy \"zero\""));
}

}  // namespace
}  // namespace faultline
