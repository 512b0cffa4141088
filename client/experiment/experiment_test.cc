// SPDX-License-Identifier: Apache-2.0
//
// Whole experiments, whose commands are shell scripts that do what a test needs.
#include "client/experiment/experiment.h"

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_split.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "client/bench/gnuplot.h"
#include "client/experiment/plan.h"

namespace faultline::experiment {
namespace {

std::string Read(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

class ExperimentTest : public ::testing::Test {
 protected:
  ExperimentTest() {
    std::string name = testing::TempDir() + "faultline-experiment.XXXXXX";
    directory_ = mkdtemp(name.data());
    options_.spec_path = directory_ + "/spec.toml";
    options_.directory = directory_ + "/out";
    options_.plots = false;
    options_.surroundings = {.faultline = directory_ + "/run",
                             .workload = directory_ + "/workload",
                             .server = "127.0.0.1:1",
                             .stats = ""};
    // Tells that it was run, and how long it took: 1 s, or $SECONDS_OF_RUN under the other.
    Script("workload",
           "echo \"${CONDITION:-plain} $*\" >>" + directory_ +
               "/log\n"
               "echo '{\"workload\":\"w\",\"seconds\":'${SECONDS_OF_RUN:-1}',\"operations\":100,"
               "\"major_faults\":25,\"checksum\":\"c0\","
               "\"latency_us\":{\"p50\":1,\"percentiles\":[1,2,3]}}'\n");
    // As `faultline run` does: runs what is behind "--", and leaves counters.
    Script("run",
           "for argument; do case $argument in --stats=*) stats=${argument#--stats=};; esac; done\n"
           "CONDITION=\"$2 $3\" SECONDS_OF_RUN=4\n"
           "export CONDITION SECONDS_OF_RUN\n"
           "while [ \"$1\" != -- ]; do shift; done; shift\n"
           "\"$@\" || exit\n"
           "echo '{\"faults_total\":40,\"joined_faults_total\":10,\"copied_pages_total\":30}' "
           ">\"$stats\"\n");
    Spec("");
  }
  ~ExperimentTest() override { std::filesystem::remove_all(directory_); }

  void Script(const std::string& name, const std::string& body) {
    const std::string path = directory_ + "/" + name;
    std::ofstream(path) << "#!/bin/sh\n" << body;
    ASSERT_EQ(chmod(path.c_str(), 0755), 0);
  }
  std::string BodyOf(const std::string& name) const {
    const std::string text = Read(directory_ + "/" + name);
    return text.substr(text.find('\n') + 1);
  }
  void Spec(const std::string& general) {
    std::ofstream(options_.spec_path)
        << "name = \"test\"\nrepetitions = 2\n"
        << general
        << "\ncommand = [\"{faultline}\", \"run\", \"{local}\", \"{policy}\", \"--stats={stats}\", "
           "\"--\", \"{program}\"]\n"
           "[[programs]]\nname = \"one\"\nworkload = \"sort\"\nsize = \"1MiB\"\n"
           "[[programs]]\nname = \"two\"\nworkload = \"bfs\"\nsize = \"1MiB\"\n"
           "[sweep]\nlocal = [50, 25]\npolicy = \"fifo\"\n";
  }
  absl::Status RunIt() {
    results_.clear();
    return RunExperiment(
        options_, [this](const std::string& line) { progress_.push_back(line); }, &results_);
  }
  std::string Csv() const { return Read(options_.directory + "/results.csv"); }
  // What was run, without its flags: "plain sort".
  std::vector<std::string> Log() const {
    std::vector<std::string> lines;
    for (const absl::string_view line : absl::StrSplit(Read(directory_ + "/log"), '\n')) {
      if (!line.empty()) lines.emplace_back(line.substr(0, line.find(" --")));
    }
    return lines;
  }

  std::string directory_;
  ExperimentOptions options_;
  std::vector<Result> results_;
  std::vector<std::string> progress_;
};

TEST_F(ExperimentTest, RunsEveryCellInTurnAndKeepsWhatItGave) {
  const absl::Status status = RunIt();
  ASSERT_TRUE(status.ok()) << status;
  const std::vector<std::string> once = {"plain sort", "50 fifo sort", "25 fifo sort",
                                         "plain bfs",  "50 fifo bfs",  "25 fifo bfs"};
  std::vector<std::string> twice = once;
  twice.insert(twice.end(), once.begin(), once.end());
  EXPECT_EQ(Log(), twice);
  ASSERT_EQ(results_.size(), 12u);
  EXPECT_EQ(results_[0].Figure("seconds"), 1);
  EXPECT_EQ(results_[0].Figure("remote_misses"), std::nullopt);
  EXPECT_EQ(results_[1].Figure("seconds"), 4);
  EXPECT_EQ(results_[1].Figure("remote_misses"), 30);
  EXPECT_EQ(results_[1].Figure("major_faults"), 25);
  EXPECT_EQ(results_[1].checksum, "c0");
  const absl::StatusOr<std::vector<Result>> kept = ParseCsv(Csv());
  ASSERT_TRUE(kept.ok()) << kept.status();
  ASSERT_EQ(kept->size(), 12u);
  EXPECT_EQ((*kept)[11].figures, results_[11].figures);
  const std::string summary = Read(options_.directory + "/summary.csv");
  EXPECT_TRUE(absl::StrContains(summary, "one,faultline,50,fifo,,,2,0,4,4,4,4,4,4,4,,,,"))
      << summary;
  EXPECT_EQ(progress_[1], "[2/12] one 50% faultline fifo: 4.000 s");
  EXPECT_EQ(Read(options_.directory + "/spec.toml"), Read(options_.spec_path));
  const std::string record = Read(options_.directory + "/runs/0002.json");
  EXPECT_TRUE(absl::StrContains(record, "\"joined_faults_total\": 10")) << record;
  EXPECT_TRUE(absl::StrContains(record, "--output=json")) << record;
}

// Each line is there before the next run begins.
TEST_F(ExperimentTest, AResultIsWrittenAsSoonAsItIsThere) {
  Script("workload", "wc -l <" + options_.directory + "/results.csv >>" + directory_ + "/log\n" +
                         BodyOf("workload").substr(BodyOf("workload").find('\n') + 1));
  ASSERT_TRUE(RunIt().ok());
  std::vector<std::string> lines;
  for (int i = 1; i <= 12; ++i) lines.push_back(absl::StrCat(i));
  EXPECT_EQ(Log(), lines);
}

TEST_F(ExperimentTest, ARunThatFailsIsKeptAsFailedAndRepeatedLater) {
  const std::string run = BodyOf("run");
  Script("run",
         "[ \"$2\" != 25 ] || { echo noise >&2; echo 'page 7 is wrong' >&2; exit 1; }\n" + run);
  absl::Status status = RunIt();
  EXPECT_TRUE(absl::IsInternal(status)) << status;
  EXPECT_TRUE(absl::StrContains(status.message(), "4 of 12 runs have failed")) << status;
  EXPECT_EQ(results_[2].exit_status, 1);
  EXPECT_EQ(results_[2].error, "page 7 is wrong");
  EXPECT_TRUE(absl::StrContains(Csv(), "page 7 is wrong"));
  EXPECT_EQ(Read(options_.directory + "/runs/0003.log"), "noise\npage 7 is wrong\n");
  EXPECT_FALSE(std::filesystem::exists(options_.directory + "/runs/0001.log"));
  Script("run", run);
  options_.resume = true;
  status = RunIt();
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(results_.size(), 12u);
  EXPECT_FALSE(absl::StrContains(Csv(), "page 7 is wrong"));
  EXPECT_EQ(ParseCsv(Csv())->size(), 12u);
}

TEST_F(ExperimentTest, OneThatWasStoppedGoesOnWhereItWas) {
  const std::string workload = BodyOf("workload");
  // The fifth ends the experiment, which is the parent of the script that runs it.
  Script("workload", absl::StrCat(workload, "[ $(wc -l <", directory_, "/log) != 5 ] || kill ",
                                  getpid(), "\n"));
  absl::Status status = RunIt();
  EXPECT_TRUE(absl::IsCancelled(status)) << status;
  EXPECT_TRUE(absl::StrContains(status.message(), "--resume")) << status;
  const size_t done = results_.size();
  EXPECT_GE(done, 4u);
  EXPECT_LE(done, 5u);
  EXPECT_EQ(ParseCsv(Csv())->size(), done);
  EXPECT_TRUE(std::filesystem::exists(options_.directory + "/summary.csv"));
  // As if it had been killed in the middle of a line.
  std::ofstream(options_.directory + "/results.csv", std::ios::app) << "6,1,two,fau";
  Script("workload", workload);
  EXPECT_TRUE(absl::IsInvalidArgument(RunIt())) << "without --resume it is refused";
  options_.resume = true;
  status = RunIt();
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(results_.size(), 12u);
  EXPECT_EQ(ParseCsv(Csv())->size(), 12u);
  EXPECT_EQ(Log().size(), 5 + 12 - done);
}

TEST_F(ExperimentTest, ResultsOfAnotherSpecAreNotMixedWithThese) {
  ASSERT_TRUE(RunIt().ok());
  Spec("timeout = \"1h\"");
  options_.resume = true;
  const absl::Status status = RunIt();
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_TRUE(absl::StrContains(status.message(), "are of another spec")) << status;
  EXPECT_EQ(ParseCsv(Csv())->size(), 12u);
}

TEST_F(ExperimentTest, ARunThatTakesTooLongIsEnded) {
  Spec("timeout = \"300ms\"");
  Script("run", "[ \"$2\" != 25 ] || exec sleep 1000\n" + BodyOf("run"));
  EXPECT_TRUE(absl::IsInternal(RunIt()));
  EXPECT_TRUE(absl::StartsWith(results_[2].error, "took longer than 300ms")) << results_[2].error;
  EXPECT_GE(*results_[2].Figure("wall_seconds"), 0.3);
  EXPECT_LT(*results_[2].Figure("wall_seconds"), 60);
  EXPECT_TRUE(results_[1].good());
}

TEST_F(ExperimentTest, AWorkloadThatTellsNoResultHasFailed) {
  Script("run", "echo all is well\n");
  EXPECT_TRUE(absl::IsInternal(RunIt()));
  EXPECT_TRUE(results_[0].good());
  EXPECT_TRUE(absl::StrContains(results_[1].error, "does the command run it")) << results_[1].error;
}

TEST_F(ExperimentTest, OneThatComputesSomethingElseHasFailed) {
  Script("run",
         "echo '{\"workload\":\"w\",\"seconds\":1,\"checksum\":\"'$([ \"$2\" = 25 ] && echo bad || "
         "echo c0)'\"}'\n");
  EXPECT_TRUE(absl::IsInternal(RunIt()));
  EXPECT_TRUE(results_[1].good());
  EXPECT_TRUE(absl::StartsWith(results_[2].error,
                               "has computed bad, where run 1 (one 100% plain) has computed c0"))
      << results_[2].error;
}

// A program that tells nothing in JSON is compared by all that it writes.
TEST_F(ExperimentTest, OutputOfOtherProgramsIsCompared) {
  const auto write_spec = [&](const std::string& more) {
    std::ofstream(options_.spec_path)
        << "name = \"test\"\nrepetitions = 1\ncommand = [\"sh\", \"-c\", "
           "'\"$@\" | sed s/7/8/', \"sh\", \"{program}\"]\n[[programs]]\nname = \"seq\"\n"
           "size = \"1MiB\"\ncommand = [\"seq\", \"1\", \"100000\"]\n"
        << more << "\n[sweep]\nlocal = 25\n";
  };
  write_spec("");
  EXPECT_TRUE(absl::IsInternal(RunIt()));
  ASSERT_EQ(results_.size(), 2u);
  EXPECT_TRUE(absl::StrContains(results_[1].error, "has computed")) << results_[1].error;
  EXPECT_EQ(results_[0].Figure("seconds"), results_[0].Figure("wall_seconds"));
  write_spec("compare-output = false");
  options_.directory += "2";
  EXPECT_TRUE(RunIt().ok());
}

TEST_F(ExperimentTest, ACommandThatCannotBeRunIsSaid) {
  std::filesystem::remove(directory_ + "/run");
  const absl::Status status = RunIt();
  EXPECT_TRUE(absl::IsNotFound(status)) << status;
  EXPECT_TRUE(absl::StrContains(status.message(), directory_ + "/run")) << status;
}

TEST_F(ExperimentTest, ADryRunPrintsTheCommandsAndRunsNone) {
  const absl::StatusOr<std::string> runs = DescribeRuns(options_);
  ASSERT_TRUE(runs.ok()) << runs.status();
  EXPECT_TRUE(absl::StrContains(*runs, "# 2: one 50% faultline fifo, repetition 1\n" + directory_ +
                                           "/run run 50 fifo --stats="))
      << *runs;
  EXPECT_EQ(std::count(runs->begin(), runs->end(), '\n'), 24);
  EXPECT_TRUE(Log().empty());
  EXPECT_FALSE(std::filesystem::exists(options_.directory));
  options_.spec_path = directory_ + "/none.toml";
  EXPECT_TRUE(absl::StrContains(DescribeRuns(options_).status().message(), "none.toml"));
}

TEST_F(ExperimentTest, DrawsItsPlots) {
  if (!bench::PlotTerminal("a.svg").ok()) GTEST_SKIP() << "gnuplot is not installed";
  options_.plots = true;
  const absl::Status status = RunIt();
  ASSERT_TRUE(status.ok()) << status;
  for (const char* const plot : {"slowdown", "misses", "traffic", "latency"}) {
    const std::string svg = Read(absl::StrCat(options_.directory, "/", plot, ".svg"));
    EXPECT_TRUE(absl::StrContains(svg, "<svg")) << plot;
    EXPECT_TRUE(absl::StrContains(svg, "faultline fifo")) << plot;
    EXPECT_TRUE(absl::StrContains(svg, "</svg>")) << plot;
  }
}

}  // namespace
}  // namespace faultline::experiment
