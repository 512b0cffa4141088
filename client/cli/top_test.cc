// SPDX-License-Identifier: Apache-2.0
#include "client/cli/top.h"

#include <absl/strings/str_split.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace faultline {
namespace {

using std::chrono::steady_clock;

AttachmentStats Stats(AttachmentId id, uint64_t faults) {
  AttachmentStats stats;
  stats.id = id;
  stats.volume = "disk";
  stats.tracked_pages = 100;
  stats.present_pages = 50;
  stats.faults_total = faults;
  stats.copied_pages_total = faults;
  return stats;
}

std::vector<TopRow> RowsOf(std::vector<AttachmentStats> now,
                           std::vector<AttachmentStats> before = {}) {
  const steady_clock::time_point start{};
  return TopRows({start, std::move(before)}, {start + std::chrono::seconds(2), std::move(now)});
}

std::vector<std::string> Draw(const std::vector<TopRow>& rows, TopScreen screen) {
  std::vector<std::string> lines = absl::StrSplit(DrawTop(rows, "title", screen), '\n');
  EXPECT_EQ(lines.back(), "");
  lines.pop_back();
  return lines;
}

TEST(Top, TellsWhatHasHappenedInASecond) {
  const std::vector<TopRow> rows = RowsOf({Stats(1, 300), Stats(2, 9)}, {Stats(1, 100)});
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].faults_per_second, 100);
  EXPECT_EQ(rows[0].filled_bytes_per_second, 100 * 4096);
  EXPECT_EQ(rows[1].faults_per_second, 0);  // it was not there before
  const nlohmann::ordered_json json = TopToJson(rows);
  EXPECT_EQ(json[0]["faults_per_second"], 100);
  EXPECT_EQ(json[0]["faults_total"], 300);
}

TEST(Top, AnotherAgentCountsFromZero) {
  EXPECT_EQ(RowsOf({Stats(1, 3)}, {Stats(1, 100)})[0].faults_per_second, 0);
}

TEST(Top, DrawsALineForEach) {
  const auto lines = Draw(RowsOf({Stats(1, 300), Stats(2, 9)}, {Stats(1, 100)}), {50, 200});
  ASSERT_EQ(lines.size(), 7u);
  EXPECT_EQ(lines[0], "title");
  EXPECT_EQ(lines[1].find("2 attachments, 0 pages waited for; 100 faults/s, 400KiB/s filled"), 0u)
      << lines[1];
  EXPECT_NE(lines[5].find(" disk "), std::string::npos) << lines[5];
  EXPECT_NE(lines[5].find(" ##########.......... "), std::string::npos) << lines[5];
}

TEST(Top, OfLittleSomethingIsSeen) {
  AttachmentStats stats = Stats(1, 0);
  stats.tracked_pages = 1'000'000;
  stats.present_pages = 999'998;
  stats.poisoned_pages = 1;
  EXPECT_NE(Draw(RowsOf({stats}), {50, 200})[5].find(" ##################x. "), std::string::npos);
  stats.local.budget_pages = 1000;
  stats.local.resident_pages = 500'000;
  stats.local.staged_pages = 2;
  stats.local.unwritten_pages = 1;
  stats.poisoned_pages = 0;
  EXPECT_NE(Draw(RowsOf({stats}), {50, 200})[5].find("#########sdeeeeeeeee"), std::string::npos)
      << Draw(RowsOf({stats}), {50, 200})[5];
}

TEST(Top, KeepsWithinTheScreen) {
  std::vector<AttachmentStats> many;
  for (uint64_t id = 1; id <= 100; ++id) many.push_back(Stats(id, 5));
  for (const size_t columns : {1, 10, 40, 70, 80, 120, 300}) {
    const auto lines = Draw(RowsOf(many), {12, columns});
    ASSERT_EQ(lines.size(), 12u);
    for (const std::string& line : lines) EXPECT_LE(line.size(), columns);
    EXPECT_EQ(lines.back(), std::string("and 94 more").substr(0, columns));
  }
  for (const size_t height : {0, 1, 5, 6})
    EXPECT_EQ(Draw(RowsOf(many), {height, 80}).size(), height);
}

TEST(Top, ColoursTakeNoRoom) {
  TopScreen screen{50, 90, TopColour::kAnsi};
  for (std::string line : Draw(RowsOf({Stats(1, 5)}), screen)) {
    std::string seen;
    for (size_t i = 0; i < line.size(); ++i) {
      if (line[i] == '\033') {
        i = line.find('m', i);
      } else {
        seen += line[i];
      }
    }
    EXPECT_LE(seen.size(), screen.columns) << line;
  }
}

// A terminal does what such characters say.
TEST(Top, NamesCannotSpeakToTheTerminal) {
  AttachmentStats stats = Stats(1, 0);
  stats.volume = "a\033[2J\nb";
  const auto lines = Draw(RowsOf({stats}), {50, 200});
  ASSERT_EQ(lines.size(), 6u);
  EXPECT_NE(lines[5].find(" a?[2J?b "), std::string::npos) << lines[5];
  stats.volume = std::string(40, 'v');
  EXPECT_NE(Draw(RowsOf({stats}), {50, 200})[5].find(" " + std::string(15, 'v') + "~ "),
            std::string::npos);
}

}  // namespace
}  // namespace faultline
