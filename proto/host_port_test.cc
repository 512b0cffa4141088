// SPDX-License-Identifier: Apache-2.0
#include "proto/host_port.h"

#include <gtest/gtest.h>
#include <netdb.h>

namespace faultline {
namespace {

TEST(HostPort, HostsAreNamesOrAddressesWithBracketsWhereTheyHaveColons) {
  const std::pair<std::string, std::pair<std::string, std::string>> cases[] = {
      {"localhost:7400", {"localhost", "7400"}},
      {"127.0.0.1:0", {"127.0.0.1", "0"}},
      {"[::1]:65535", {"::1", "65535"}},
  };
  for (const auto& [address, parts] : cases) {
    const std::optional<HostPort> split = SplitHostPort(address);
    ASSERT_TRUE(split) << address;
    EXPECT_EQ(split->host, parts.first);
    EXPECT_EQ(split->port, parts.second);
  }
}

TEST(HostPort, OtherFormsAreNone) {
  for (const char* address : {"", ":", ":80", "host", "host:", "host:port", "host:65536", "host:-1",
                              "::1:80", "[::1:80", "::1]:80", "[]:80"}) {
    EXPECT_FALSE(SplitHostPort(address)) << address;
  }
}

TEST(HostPort, AddressesAreToBeListenedAt) {
  const auto loopback = AddressesOf({"127.0.0.1", "7400"});
  ASSERT_TRUE(loopback.ok()) << loopback.status();
  EXPECT_TRUE(IsLoopback((*loopback)->ai_addr));
  const auto any = AddressesOf({"::", "0"});
  ASSERT_TRUE(any.ok()) << any.status();
  EXPECT_FALSE(IsLoopback((*any)->ai_addr));
  const absl::Status none = AddressesOf({"none.invalid", "0"}).status();
  EXPECT_TRUE(absl::IsInvalidArgument(none)) << none;
  EXPECT_NE(none.message().find("host \"none.invalid\": "), absl::string_view::npos) << none;
}

}  // namespace
}  // namespace faultline
