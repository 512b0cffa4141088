// SPDX-License-Identifier: Apache-2.0
#include "client/source/injection.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

namespace faultline {
namespace {

Injection Parsed(absl::string_view text) {
  const absl::StatusOr<Injection> injection = ParseInjection(text);
  EXPECT_TRUE(injection.ok()) << injection.status();
  return injection.value_or(Injection());
}

TEST(Injection, EveryValueIsRead) {
  const Injection injection =
      Parsed("latency=100us,jitter=20us,share=0.5,bandwidth=1gbit,loss=0.01,timeout=30ms,seed=7");
  EXPECT_EQ(injection.latency, absl::Microseconds(100));
  EXPECT_EQ(injection.jitter, absl::Microseconds(20));
  EXPECT_EQ(injection.share, 0.5);
  EXPECT_EQ(injection.bytes_per_second, 125'000'000u);
  EXPECT_EQ(injection.loss, 0.01);
  EXPECT_EQ(injection.timeout, absl::Milliseconds(30));
  EXPECT_EQ(injection.seed, 7u);
  EXPECT_TRUE(injection.any());
}

TEST(Injection, NothingIsInjectedThatWasNotAskedFor) {
  EXPECT_FALSE(Injection().any());
  EXPECT_FALSE(Parsed("latency=0,loss=0").any());
  EXPECT_FALSE(Parsed("seed=3,timeout=1s,share=0.1").any());
  for (const char* text : {"latency=1us", "bandwidth=1gbit", "loss=1"}) {
    EXPECT_TRUE(Parsed(text).any()) << text;
  }
}

TEST(Injection, AProfileStandsForValuesThatOthersReplace) {
  EXPECT_EQ(FormatInjection(Parsed("rdma")), "latency=4us,jitter=1us,bandwidth=100gbit");
  EXPECT_EQ(FormatInjection(Parsed("rdma,latency=1us,loss=0.5")),
            "latency=1us,jitter=1us,bandwidth=100gbit,loss=0.5");
  for (const char* name : {"cxl", "rdma", "ssd", "lan"}) {
    EXPECT_TRUE(Parsed(name).any()) << name;
    EXPECT_NE(InjectionProfiles().find(std::string(name) + " (latency="), std::string::npos);
  }
}

TEST(Injection, IsWrittenAsItCanBeReadBack) {
  for (const char* text :
       {"latency=100us,jitter=20us,share=0.5,bandwidth=1gbit,loss=0.01,timeout=30ms,seed=7",
        "latency=1.5ms", "loss=1", "bandwidth=2500kbit"}) {
    EXPECT_EQ(FormatInjection(Parsed(text)), text);
  }
}

TEST(Injection, WhatCannotBeReadIsRefusedWithTheReason) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "\"\" is neither KEY=VALUE"},
      {"dialup", "the name of a profile: cxl (latency=500ns,bandwidth=200gbit), rdma ("},
      {"loss=0.1,rdma", "\"rdma\" is neither KEY=VALUE, with one of latency, jitter, share"},
      {"latency", "\"latency\" is neither KEY=VALUE"},
      {"latency=1ms,", "\"\" is neither KEY=VALUE"},
      {"delay=1ms", "delay=1ms: \"delay\" is nothing that can be injected; known are latency"},
      {"latency=fast", "latency=fast: \"fast\" is no duration"},
      {"latency=-1ms", "\"-1ms\" is a negative duration"},
      {"latency=inf", "latency=inf: \"inf\" is more than the 1h allowed"},
      {"bandwidth=10MiB", "\"10MiB\" is no speed of a link; write it as 100mbit"},
      {"loss=2", "loss=2: \"2\" is no share; write a number from 0 to 1"},
      {"loss=nan", "loss=nan: \"nan\" is no share"},
      {"share=", "share=: \"\" is no share"},
      {"seed=-1", "\"-1\" is no seed; write a whole number"},
      {"latency=1ms,latency=2ms", "\"latency\" is there twice"},
      {"jitter=1ms", "a jitter of 1ms is more than the latency of 0"},
      {"rdma,latency=1us,jitter=2us", "a jitter of 2us is more than the latency of 1us"},
  };
  for (const auto& [text, message] : cases) {
    const absl::Status status = ParseInjection(text).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_NE(std::string(status.message()).find(message), std::string::npos) << status;
  }
}

}  // namespace
}  // namespace faultline
