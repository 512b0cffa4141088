// SPDX-License-Identifier: Apache-2.0
#include "client/evict/plugin_policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <string>

#include "client/evict/policies.h"

namespace faultline {
namespace {

using testing::HasSubstr;

std::string Path(const std::string& name) {
  return std::string(FAULTLINE_PLUGIN_DIRECTORY "/") + name + ".so";
}

absl::Status Refusal(const std::string& path) { return LoadPolicy(path, PageCount(10)).status(); }

TEST(PluginPolicy, WhatCannotBeLoadedIsRefusedWithTheReason) {
  const absl::Status missing = Refusal("/nowhere/policy.so");
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(missing.message(),
              HasSubstr("cannot load the policy /nowhere/policy.so: No such file or directory"));

  const std::string text = testing::TempDir() + "/no_library_" + std::to_string(getpid()) + ".so";
  FILE* const file = fopen(text.c_str(), "w");
  ASSERT_NE(file, nullptr);
  fputs("this is no library", file);
  fclose(file);
  EXPECT_EQ(Refusal(text).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Refusal(text).message(), HasSubstr(text));
  unlink(text.c_str());

  EXPECT_EQ(Refusal(testing::TempDir()).code(), absl::StatusCode::kInvalidArgument);  // a folder
  EXPECT_THAT(Refusal(Path("no_function")).message(),
              HasSubstr("exports no function faultline_policy()"));
  EXPECT_THAT(Refusal(Path("no_table")).message(), HasSubstr("returns NULL"));
  EXPECT_THAT(Refusal(Path("other_version")).message(),
              HasSubstr("is for version 2 of faultline_policy.h, not 1"));
  EXPECT_THAT(Refusal(Path("incomplete")).message(), HasSubstr("leaves functions out"));
  for (const char* name : {"no_function", "no_table", "other_version", "incomplete"}) {
    EXPECT_EQ(Refusal(Path(name)).code(), absl::StatusCode::kInvalidArgument) << name;
  }
  EXPECT_EQ(Refusal(Path("not_created")),
            absl::ResourceExhaustedError("the policy " + Path("not_created") +
                                         " could not be created for 10 pages"));
}

// Not where the system's libraries are.
TEST(PluginPolicy, AFileNameIsOneOfTheWorkingDirectory) {
  char before[4096];
  ASSERT_NE(getcwd(before, sizeof(before)), nullptr);
  ASSERT_EQ(chdir(FAULTLINE_PLUGIN_DIRECTORY), 0);
  EXPECT_TRUE(MakeEvictionPolicy("clock_policy.so", PageCount(10)).ok());
  ASSERT_EQ(chdir(before), 0);
}

class FaultyPolicy : public testing::TestWithParam<const char*> {};

// The contract holds all the same: as many as asked for, all resident, none twice.
TEST_P(FaultyPolicy, DoesNotReachWhoUsesIt) {
  auto policy = LoadPolicy(Path(GetParam()), PageCount(10));
  ASSERT_TRUE(policy.ok()) << policy.status();
  std::vector<PageIndex> all;
  for (uint64_t page = 0; page < 40; ++page) (*policy)->OnFill(PageIndex(page), FillCause::kDemand);
  for (int i = 0; i < 10; ++i) {
    std::vector<PageIndex> victims;
    testing::internal::CaptureStderr();
    (*policy)->Choose(PageCount(4), &victims);
    const std::string log = testing::internal::GetCapturedStderr();
    EXPECT_EQ(victims.size(), 4u);
    if (i == 0) {
      EXPECT_THAT(log, HasSubstr("the policy " + Path(GetParam()) + " has chosen"));
      EXPECT_THAT(log, HasSubstr("the oldest page leaves instead"));
    } else {
      EXPECT_EQ(log, "");  // it is said once
    }
    all.insert(all.end(), victims.begin(), victims.end());
  }
  EXPECT_EQ((*policy)->resident(), PageCount(0));
  std::sort(all.begin(), all.end());
  for (uint64_t page = 0; page < 40; ++page) EXPECT_EQ(all[page], PageIndex(page));
  (*policy)->Choose(PageCount(4), &all);
  EXPECT_EQ(all.size(), 40u);
}

INSTANTIATE_TEST_SUITE_P(PluginPolicy, FaultyPolicy,
                         testing::Values("chooses_nothing", "chooses_the_same", "chooses_anything"),
                         [](const auto& name) { return std::string(name.param); });

TEST(PluginPolicy, TheExamplePassesOverWhatWasWantedBack) {
  auto policy = LoadPolicy(Path("clock_policy"), PageCount(10));
  ASSERT_TRUE(policy.ok()) << policy.status();
  const auto choose = [&](uint64_t count) {
    std::vector<PageIndex> victims;
    (*policy)->Choose(PageCount(count), &victims);
    return victims;
  };
  for (uint64_t page : {1, 2}) (*policy)->OnFill(PageIndex(page), FillCause::kDemand);
  EXPECT_EQ(choose(2).size(), 2u);
  (*policy)->OnReturn(PageIndex(1), /*wanted=*/true);
  (*policy)->OnReturn(PageIndex(2), /*wanted=*/false);
  EXPECT_EQ(choose(1), std::vector<PageIndex>{PageIndex(2)});
  EXPECT_EQ(choose(1), std::vector<PageIndex>{PageIndex(1)});
}

}  // namespace
}  // namespace faultline
