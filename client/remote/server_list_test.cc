// SPDX-License-Identifier: Apache-2.0
#include "client/remote/server_list.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace faultline {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<std::string> Entries(const std::string& text) {
  const auto entries = ParseServers(text, {});
  EXPECT_TRUE(entries.ok()) << entries.status();
  std::vector<std::string> all;
  for (const ServerEntry& entry : *entries) {
    all.push_back(absl::StrCat(entry.is_name ? "name " : "", entry.address));
  }
  return all;
}

TEST(ServerList, EntriesAreOfThreeForms) {
  EXPECT_THAT(Entries("host:7400"), ElementsAre("host:7400"));
  EXPECT_THAT(Entries("a:1,b:2,[::1]:3,unix:/run/s,dns:///pages.example:7400"),
              ElementsAre("a:1", "b:2", "[::1]:3", "unix:/run/s", "name pages.example:7400"));
}

TEST(ServerList, WhatIsWrongIsNamed) {
  const auto refusal = [](const std::string& text) {
    return std::string(ParseServers(text, {}).status().message());
  };
  EXPECT_THAT(refusal("a:1,"), HasSubstr("\"\" is no server address"));
  EXPECT_THAT(refusal("a:1, b:2"), testing::Not(HasSubstr("a:1\" is no")));
  EXPECT_THAT(refusal("a:1,b"), HasSubstr("\"b\" is no server address"));
  EXPECT_THAT(refusal("dns://a:1"), HasSubstr("\"dns://a:1\" is no server address"));
  EXPECT_THAT(refusal("dns:///a"), HasSubstr("\"dns:///a\" is no server address"));
  EXPECT_THAT(refusal("dns:///8.8.8.8/a:1"), HasSubstr("is no server address"));
  EXPECT_THAT(refusal("a:1,b:2,a:1"), HasSubstr("\"a:1\" stands twice"));
  std::vector<std::string> many;
  for (size_t i = 1; i <= kMaxServers + 1; ++i) many.push_back(absl::StrCat("a:", i));
  EXPECT_THAT(refusal(absl::StrJoin(many, ",")), HasSubstr("names 9 servers"));
  EXPECT_EQ(ParseServers("a:1", {.files = {}, .server_name = "b"}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(ServerList, NumbersNeedNoLookUpAndNamesBecomeNumbers) {
  for (const char* address : {"127.0.0.1:7400", "[::1]:7400", "unix:/run/s"}) {
    const auto servers = LookUpServers({address, false});
    ASSERT_TRUE(servers.ok()) << servers.status();
    EXPECT_THAT(*servers, ElementsAre(ServerAddress{address, ""}));
  }
  for (const bool is_name : {false, true}) {
    const auto servers = LookUpServers({"localhost:7400", is_name});
    ASSERT_TRUE(servers.ok()) << servers.status();
    ASSERT_EQ(servers->size(), 1u);
    EXPECT_THAT((*servers)[0].address, testing::AnyOf("127.0.0.1:7400", "[::1]:7400"));
    // The certificate is of the name.
    EXPECT_EQ((*servers)[0].server_name, "localhost");
  }
}

TEST(ServerList, ANameThatIsNotThereIsSaidToBeSo) {
  const absl::Status status = LookUpServers({"no-such-host.invalid:7400", true}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("cannot look up page server no-such-host.invalid:7400"));
}

}  // namespace
}  // namespace faultline
