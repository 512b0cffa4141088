// SPDX-License-Identifier: Apache-2.0
#include "client/churn/agent_counters.h"

#include <gtest/gtest.h>

#include "client/churn/churn_report.h"

namespace faultline::churn {
namespace {

using nlohmann::json;

TEST(AgentCountersTest, CountsEachAttachmentOnceAsItWasLastSeen) {
  AgentCounters counters;
  EXPECT_TRUE(counters.Look(
      json::parse(R"({"attachments":[{"id":1,"wakes_total":3,"fault_max_us":9.5}]})")));
  EXPECT_TRUE(counters.Look(json::parse(
      R"({"attachments":[{"id":1,"wakes_total":4,"fault_max_us":9.5},
                         {"id":2,"parent":1,"wakes_total":10,"fault_max_us":2.0}]})")));
  EXPECT_TRUE(counters.Look(json::parse(R"({"attachments":[{"id":3,"wakes_total":100}]})")));
  const nlohmann::ordered_json sum = counters.Sum();
  EXPECT_EQ(sum["wakes_total"], 114u);
  EXPECT_EQ(sum["attachments_total"], 2u);
  EXPECT_EQ(sum["children_total"], 1u);
  EXPECT_EQ(sum["fault_max_us"], 9.5);
}

TEST(AgentCountersTest, KeepsWhatItHasWhenAnAnswerIsNone) {
  AgentCounters counters;
  EXPECT_TRUE(counters.Look(json::parse(R"({"attachments":[{"id":1,"wakes_total":3}]})")));
  EXPECT_FALSE(counters.Look(json::parse(R"({"status":"error"})")));
  EXPECT_EQ(counters.Sum()["wakes_total"], 3u);
}

TEST(AgentCountersTest, AddsUpWhatAgentsHaveDoneOneAfterTheOther) {
  AgentCounters counters;
  const json seen =
      json::parse(R"({"attachments":[{"id":1,"wakes_total":3},{"id":2,"wakes_total":10}]})");
  EXPECT_TRUE(counters.Look(seen));
  counters.NoteSuccessor();
  EXPECT_EQ(counters.Sum()["wakes_total"], 13u);
  EXPECT_EQ(counters.Sum()["attachments_total"], 2u);
  EXPECT_TRUE(counters.Look(json::parse(R"({"attachments":[{"id":1,"wakes_total":1}]})")));
  EXPECT_EQ(counters.Sum()["wakes_total"], 14u);
  EXPECT_EQ(counters.Sum()["attachments_total"], 2u);
}

nlohmann::ordered_json Target(uint64_t wrong, uint64_t hangs, uint64_t failed) {
  return {{"seed", 5},
          {"wrong_bytes_total", wrong},
          {"wrong_pages_total", 1},
          {"hangs_total", hangs},
          {"children_failed_total", failed},
          {"operations", json::array()}};
}

TEST(ChurnReportTest, WrongBytesHangsAndDeadChildrenAreFailures) {
  EXPECT_TRUE(Verdict(Target(0, 0, 0)).ok());
  EXPECT_EQ(Verdict(Target(12, 0, 0)).message(),
            "12 bytes in 1 pages were wrong; the reports above say where, seed 5");
  EXPECT_EQ(Verdict(Target(0, 3, 0)).message(),
            "3 operations hung; the reports above say where, seed 5");
  EXPECT_EQ(Verdict(Target(0, 0, 2)).code(), absl::StatusCode::kInternal);
}

TEST(ChurnReportTest, PrintsLatenciesBesideThoseWithNobodyAttached) {
  nlohmann::ordered_json report = {{"configuration", "as it was"}, {"target", Target(0, 0, 0)}};
  report["target"]["operations"].push_back(
      {{"name", "move"}, {"done_total", 17}, {"p50_us", 12.5}, {"p99_us", 40.0}, {"max_us", 99.0}});
  report["baseline"] = Target(0, 0, 0);
  report["baseline"]["operations"].push_back(
      {{"name", "move"}, {"done_total", 20}, {"p50_us", 8.5}, {"p99_us", 9.0}, {"max_us", 10.0}});
  report["agent"] = {{"wakes_total", 12}};
  const std::string text = FormatChurnReport(report);
  EXPECT_NE(
      text.find("move                 17        0         12.5       40.0       99.0          "
                "8.5        9.0       10.0\n"),
      std::string::npos)
      << text;
  EXPECT_NE(text.find("  wakes_total                12\n"), std::string::npos) << text;
}

}  // namespace
}  // namespace faultline::churn
