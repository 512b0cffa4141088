// SPDX-License-Identifier: Apache-2.0
#include "client/attach/volume_permissions.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <string>
#include <vector>

namespace faultline {
namespace {

PeerProcess PeerOfUser(uid_t user, std::vector<gid_t> groups) {
  PeerProcess peer;
  peer.user = user;
  peer.groups = std::move(groups);
  return peer;
}

VolumePermissions Rules(const std::vector<std::string>& rules) {
  absl::StatusOr<VolumePermissions> permissions = VolumePermissions::Parse(rules);
  EXPECT_TRUE(permissions.ok()) << permissions.status();
  return permissions.value_or(VolumePermissions());
}

TEST(VolumePermissions, WithoutARuleAllIsAllowed) {
  EXPECT_TRUE(Rules({}).Allows(PeerOfUser(12, {13}), "vm"));
}

TEST(VolumePermissions, WhatNoRuleAllowsIsRefused) {
  const VolumePermissions rules =
      Rules({"user:1000=vm1,web-*", "group:50=shared", "user:root=*", "user:1001=vm1"});
  const PeerProcess user = PeerOfUser(1000, {1000});
  EXPECT_TRUE(rules.Allows(user, "vm1"));
  EXPECT_TRUE(rules.Allows(user, "web-"));
  EXPECT_TRUE(rules.Allows(user, "web-3"));
  EXPECT_FALSE(rules.Allows(user, "vm"));
  EXPECT_FALSE(rules.Allows(user, "vm12"));
  EXPECT_FALSE(rules.Allows(user, "web"));
  EXPECT_FALSE(rules.Allows(user, ""));
  EXPECT_FALSE(rules.Allows(user, "shared"));
  EXPECT_TRUE(rules.Allows(PeerOfUser(7, {7, 50}), "shared"));
  EXPECT_FALSE(rules.Allows(PeerOfUser(50, {7}), "shared"));    // a user of the group's number
  EXPECT_FALSE(rules.Allows(PeerOfUser(7, {1000, 0}), "vm1"));  // a group of the user's
  EXPECT_TRUE(rules.Allows(PeerOfUser(0, {}), "anything"));
  EXPECT_FALSE(rules.Allows(PeerProcess(), "vm1"));  // not known
}

TEST(VolumePermissions, RootNeedsARuleToo) {
  EXPECT_FALSE(Rules({"user:1000=vm"}).Allows(PeerOfUser(0, {0}), "vm"));
}

TEST(VolumePermissions, ARefusalSaysWhoAndWhat) {
  const absl::Status refused = Rules({"user:1=vm"}).Check(PeerOfUser(2, {2}), "other");
  EXPECT_EQ(refused.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(refused.message(),
            "user 2 may not have volume \"other\" here; who may is said by the agent's --allow");
  EXPECT_EQ(Rules({"user:1=vm"}).Check(PeerOfUser(1, {}), "vm"), absl::OkStatus());
}

TEST(VolumePermissions, RulesOfAnotherFormAreErrors) {
  for (const char* rule : {"", "user:1", "user:1=", "1=vm", "user:1=vm,", "user:1=v m", "user:=vm",
                           "user:1=*vm", "user:4294967295=vm", "group:-1=vm",
                           "user:no-such-user-here=vm", "group:no-such-group-here=vm"}) {
    const absl::Status status = VolumePermissions::Parse({rule}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << rule;
    EXPECT_NE(status.message().find(rule), std::string::npos) << status;
  }
}

TEST(SocketOwner, IsGivenByNameOrNumber) {
  const absl::StatusOr<SocketOwner> both = ParseSocketOwner("root:7");
  ASSERT_TRUE(both.ok()) << both.status();
  EXPECT_EQ(both->user, uid_t{0});
  EXPECT_EQ(both->group, gid_t{7});
  const absl::StatusOr<SocketOwner> group = ParseSocketOwner(":root");
  ASSERT_TRUE(group.ok()) << group.status();
  EXPECT_FALSE(group->user.has_value());
  EXPECT_EQ(group->group, gid_t{0});
  EXPECT_EQ(ParseSocketOwner("12")->user, uid_t{12});
  for (const char* text : {"", ":", "no-such-user-here", "0:no-such-group-here", "1:2:3"}) {
    EXPECT_EQ(ParseSocketOwner(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

}  // namespace
}  // namespace faultline
