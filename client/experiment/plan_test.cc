// SPDX-License-Identifier: Apache-2.0
#include "client/experiment/plan.h"

#include <gtest/gtest.h>

#include "client/experiment/command.h"

namespace faultline::experiment {
namespace {

Spec SmallSpec() {
  Spec spec;
  spec.name = "small";
  spec.repetitions = 2;
  spec.command = DefaultCommand();
  spec.programs = {{.name = "zipf", .command = {"{workload}", "zipf"}, .size_bytes = 1 << 20},
                   {.name = "sort", .command = {"sort", "a file"}, .size_bytes = 3 << 20}};
  spec.sweeps = {{.local_percents = {100, 25},
                  .policies = {"fifo", "s3-fifo"},
                  .prefetches = {""},
                  .injections = {"", "latency=1ms"},
                  .programs = {"zipf"}}};
  return spec;
}

std::vector<std::string> Names(const std::vector<Cell>& cells) {
  std::vector<std::string> names;
  for (const Cell& cell : cells) names.push_back(CellName(cell));
  return names;
}

TEST(Plan, CellsAreTheBaselinesAndEveryCombination) {
  Spec spec = SmallSpec();
  spec.baselines.swap = true;
  EXPECT_EQ(
      Names(CellsOf(spec)),
      (std::vector<std::string>{
          "zipf 100% plain", "zipf 100% faultline fifo", "zipf 100% faultline fifo latency=1ms",
          "zipf 100% faultline s3-fifo", "zipf 100% faultline s3-fifo latency=1ms", "zipf 25% swap",
          "zipf 25% faultline fifo", "zipf 25% faultline fifo latency=1ms",
          "zipf 25% faultline s3-fifo", "zipf 25% faultline s3-fifo latency=1ms",
          "sort 100% plain"}));
  spec.baselines.plain = spec.baselines.swap = false;
  EXPECT_EQ(CellsOf(spec).size(), 8u);
}

TEST(Plan, WhatTwoSweepsHaveIsMeasuredOnce) {
  Spec spec = SmallSpec();
  spec.sweeps.push_back({.local_percents = {25},
                         .policies = {"fifo"},
                         .prefetches = {"", "majority"},
                         .injections = {""},
                         .programs = {"zipf", "sort"}});
  const std::vector<std::string> names = Names(CellsOf(spec));
  EXPECT_EQ(names.size(), 10u + 1 + 2);
  EXPECT_EQ(std::count(names.begin(), names.end(), "zipf 25% faultline fifo"), 1);
  EXPECT_EQ(names.back(), "sort 25% faultline fifo majority");
}

// A drift of the machine meets all cells alike.
TEST(Plan, EveryCellHasItsTurnBeforeOneHasItsSecond) {
  const Spec spec = SmallSpec();
  const std::vector<Cell> cells = CellsOf(spec);
  const auto runs = PlanRuns(spec);
  ASSERT_EQ(runs.size(), 2 * cells.size());
  for (size_t i = 0; i < runs.size(); ++i) {
    EXPECT_EQ(runs[i].cell, cells[i % cells.size()]);
    EXPECT_EQ(runs[i].repetition, i < cells.size() ? 1u : 2u);
    EXPECT_EQ(runs[i].number, i + 1);
  }
}

constexpr char kFaultline[] = "/bin/faultline", kWorkload[] = "/bin/faultline-workload";

std::string CommandLine(const Spec& spec, const Cell& cell, const Program& program) {
  return ShellQuoted(CommandOf(spec, cell, program,
                               {.faultline = kFaultline,
                                .workload = kWorkload,
                                .server = "127.0.0.1:7400",
                                .tls = {},
                                .stats = "/tmp/stats"}));
}

TEST(Command, HasTheFlagsOfItsCell) {
  const Spec spec = SmallSpec();
  const Cell cell = {.program = "zipf",
                     .system = System::kFar,
                     .local_percent = 12.5,
                     .policy = "s3-fifo",
                     .prefetch = "majority",
                     .inject = "latency=1ms,loss=0.1"};
  EXPECT_EQ(CommandLine(spec, cell, spec.programs[0]),
            "/bin/faultline --server=127.0.0.1:7400 run --local-memory=131072 --policy=s3-fifo "
            "--prefetch=majority --inject=latency=1ms,loss=0.1 --stats=/tmp/stats -- "
            "/bin/faultline-workload zipf");
}

// Whatever the command is.
TEST(Command, SpeaksToTheServerAsTheExperimentItselfWould) {
  Spec spec = SmallSpec();
  spec.command = {"env", "A={faultline}", "{faultline}", "run", "{program}"};
  const Cell cell = {.program = "sort", .system = System::kFar, .local_percent = 100};
  EXPECT_EQ(ShellQuoted(CommandOf(spec, cell, spec.programs[1],
                                  {.faultline = kFaultline,
                                   .workload = kWorkload,
                                   .server = "pages:7400",
                                   .tls = {"--tls-ca=ca.pem", "--tls-key=key.pem"},
                                   .stats = ""})),
            "env A=/bin/faultline /bin/faultline --tls-ca=ca.pem --tls-key=key.pem run "
            "sort 'a file'");
}

TEST(Command, SaysNothingAboutWhatTheSweepSaysNothingAbout) {
  const Spec spec = SmallSpec();
  const Cell cell = {.program = "sort", .system = System::kFar, .local_percent = 25};
  EXPECT_EQ(
      CommandLine(spec, cell, spec.programs[1]),
      "/bin/faultline --server=127.0.0.1:7400 run --local-memory=786432 --stats=/tmp/stats -- "
      "sort 'a file'");
}

TEST(Command, HasNoLimitForAllOfTheMemory) {
  const Spec spec = SmallSpec();
  const Cell cell = {.program = "sort", .system = System::kFar, .local_percent = 100};
  EXPECT_EQ(CommandLine(spec, cell, spec.programs[1]),
            "/bin/faultline --server=127.0.0.1:7400 run --local-memory=100% --stats=/tmp/stats -- "
            "sort 'a file'");
}

TEST(Command, OfABaselineIsTheProgramItself) {
  const Spec spec = SmallSpec();
  EXPECT_EQ(CommandLine(spec, {.program = "zipf"}, spec.programs[0]),
            "/bin/faultline-workload zipf");
  const Cell swap = {.program = "sort", .system = System::kSwap, .local_percent = 50};
  EXPECT_EQ(CommandLine(spec, swap, spec.programs[1]), "sort 'a file'");
}

TEST(Command, MayBeAnotherWithSharesInBytes) {
  Spec spec = SmallSpec();
  spec.command = {"run", "--bytes={local_bytes},x", "{program}", "end"};
  ASSERT_TRUE(CheckCommand(spec.command).ok());
  const Cell cell = {.program = "sort", .system = System::kFar, .local_percent = 33};
  // Whole pages.
  EXPECT_EQ(CommandLine(spec, cell, spec.programs[1]), "run --bytes=1036288,x sort 'a file' end");
}

TEST(Command, IsQuotedAsAShellReadsIt) {
  EXPECT_EQ(ShellQuoted({"a", "", "b c", "it's", "$x", "--a=b,c%"}),
            R"(a '' 'b c' 'it'\''s' '$x' --a=b,c%)");
}

}  // namespace
}  // namespace faultline::experiment
