// SPDX-License-Identifier: Apache-2.0
#include "proto/units.h"

#include <absl/strings/str_cat.h>
#include <gtest/gtest.h>

#include <limits>
#include <utility>

namespace faultline {
namespace {

uint64_t Bytes(absl::string_view text) {
  const absl::StatusOr<uint64_t> bytes = ParseBytes(text);
  EXPECT_TRUE(bytes.ok()) << bytes.status();
  return bytes.value_or(0);
}

TEST(Units, EveryUnitIsRead) {
  EXPECT_EQ(Bytes("0"), 0u);
  EXPECT_EQ(Bytes("4096"), 4096u);
  EXPECT_EQ(Bytes("7B"), 7u);
  EXPECT_EQ(Bytes("64KiB"), 65536u);
  EXPECT_EQ(Bytes("64K"), 65536u);
  EXPECT_EQ(Bytes("256MiB"), uint64_t{256} << 20);
  EXPECT_EQ(Bytes(" 1 GiB "), uint64_t{1} << 30);
  EXPECT_EQ(Bytes("3T"), uint64_t{3} << 40);
  EXPECT_EQ(Bytes("2PiB"), uint64_t{2} << 50);
  EXPECT_EQ(Bytes("18446744073709551615"), std::numeric_limits<uint64_t>::max());
}

TEST(Units, WhatIsNoSizeIsRefusedWithTheTextAndTheUnits) {
  for (const char* text : {"", "MiB", "-1", "1.5GiB", "1MB", "0x10", "1 0", "18446744073709551616",
                           "16384PiB", "99999999999999999999999"}) {
    const absl::Status status = ParseBytes(text).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_NE(status.message().find(absl::StrCat("\"", text, "\"")), absl::string_view::npos);
    EXPECT_NE(status.message().find("KiB, MiB, GiB"), absl::string_view::npos) << status;
  }
}

TEST(Units, WholeUnitsAreWrittenSoThatTheyCanBeReadBack) {
  for (const uint64_t bytes : {uint64_t{0}, uint64_t{1}, uint64_t{1023}, uint64_t{65536},
                               uint64_t{256} << 20, uint64_t{7} << 30, uint64_t{1} << 52}) {
    EXPECT_EQ(Bytes(FormatBytes(bytes)), bytes) << FormatBytes(bytes);
    EXPECT_EQ(FormatExactBytes(bytes), FormatBytes(bytes));
  }
  for (const uint64_t bytes : {uint64_t{60293120}, uint64_t{1025}, ~uint64_t{0}}) {
    EXPECT_EQ(Bytes(FormatExactBytes(bytes)), bytes) << FormatExactBytes(bytes);
  }
  EXPECT_EQ(FormatBytes(uint64_t{256} << 20), "256MiB");
  EXPECT_EQ(FormatBytes((uint64_t{1} << 30) + (uint64_t{1} << 29)), "1.5GiB");
}

TEST(Units, DurationsNeedAUnitAndAreNotNegative) {
  EXPECT_EQ(ParseDuration("500ms").value_or(absl::InfiniteDuration()), absl::Milliseconds(500));
  EXPECT_EQ(ParseDuration("1m30s").value_or(absl::InfiniteDuration()), absl::Seconds(90));
  EXPECT_EQ(ParseDuration("0").value_or(absl::InfiniteDuration()), absl::ZeroDuration());
  for (const char* text : {"", "10", "-1s", "1 hour", "soon"}) {
    const absl::Status status = ParseDuration(text).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_NE(status.message().find(absl::StrCat("\"", text, "\"")), absl::string_view::npos);
  }
}

TEST(Units, SpeedsAreReadInBitsAndWrittenAsTheyWereRead) {
  for (const auto& [text, bytes] : {std::pair<const char*, uint64_t>{"1gbit", 125'000'000},
                                    {"100mbit", 12'500'000},
                                    {"2500kbit", 312'500},
                                    {"1000gbit", 125'000'000'000}}) {
    EXPECT_EQ(ParseBitRate(text).value_or(0), bytes);
    EXPECT_EQ(FormatBitRate(bytes), text);
  }
  EXPECT_EQ(FormatBitRate(1), "0kbit");
  for (const char* text : {"", "1", "gbit", "0mbit", "1.5gbit", "-1gbit", "1GiB", "1001gbit"}) {
    const absl::Status status = ParseBitRate(text).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_NE(status.message().find(absl::StrCat("\"", text, "\"")), absl::string_view::npos);
  }
}

}  // namespace
}  // namespace faultline
