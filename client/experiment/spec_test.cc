// SPDX-License-Identifier: Apache-2.0
#include "client/experiment/spec.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "client/experiment/command.h"
#include "client/experiment/plan.h"

namespace faultline::experiment {
namespace {

constexpr char kGood[] = R"(name = "all keys"
repetitions = 5
timeout = "90s"
command = ["{faultline}", "run", "--local-memory={local_bytes}", "--", "{program}"]

[[programs]]
workload = "zipf"
size = "64MiB"
operations = 1000
seed = 7
threads = 2
write-share = 0.25
pin-cpu = true

[[programs]]
name = "sort a file"
command = ["sort", "file with a blank"]
size = 1048576
compare-output = false

[[sweep]]
local = ["100%", 50, 12.5]
policy = ["fifo", "s3-fifo"]
prefetch = "majority"
inject = ["none", "latency=100us,loss=0.01"]
programs = ["zipf"]

[[sweep]]
local = ["25%"]

[baselines]
plain = false
swap = true
swap-directory = "/somewhere"
swap-extra = "4MiB"

[stats]
remote_misses = ["misses_total", "-joined_total"]
)";

TEST(Spec, HasEveryKeyThatIsWritten) {
  const absl::StatusOr<Spec> spec = ParseSpec(kGood, "good.toml");
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->name, "all keys");
  EXPECT_EQ(spec->repetitions, 5u);
  EXPECT_EQ(spec->timeout, absl::Seconds(90));
  EXPECT_EQ(spec->command[2], "--local-memory={local_bytes}");
  ASSERT_EQ(spec->programs.size(), 2u);
  EXPECT_EQ(spec->programs[0].name, "zipf");
  EXPECT_EQ(spec->programs[0].size_bytes, uint64_t{64} << 20);
  EXPECT_EQ(ShellQuoted(spec->programs[0].command),
            "'{workload}' zipf --size=67108864 --seed=7 --threads=2 --operations=1000 "
            "--write-share=0.25 --pin-cpu --output=json");
  EXPECT_TRUE(spec->programs[0].compare_output);
  EXPECT_EQ(spec->programs[1].name, "sort a file");
  EXPECT_EQ(spec->programs[1].command, (std::vector<std::string>{"sort", "file with a blank"}));
  EXPECT_FALSE(spec->programs[1].compare_output);
  ASSERT_EQ(spec->sweeps.size(), 2u);
  EXPECT_EQ(spec->sweeps[0].local_percents, (std::vector<double>{100, 50, 12.5}));
  EXPECT_EQ(spec->sweeps[0].prefetches, (std::vector<std::string>{"majority"}));
  EXPECT_EQ(spec->sweeps[0].injections, (std::vector<std::string>{"", "latency=100us,loss=0.01"}));
  EXPECT_EQ(spec->sweeps[0].programs, (std::vector<std::string>{"zipf"}));
  EXPECT_EQ(spec->sweeps[1].programs.size(), 2u);
  EXPECT_EQ(spec->sweeps[1].policies, (std::vector<std::string>{""}));
  EXPECT_FALSE(spec->baselines.plain);
  EXPECT_TRUE(spec->baselines.swap);
  EXPECT_EQ(spec->baselines.swap_directory, "/somewhere");
  EXPECT_EQ(spec->baselines.swap_extra_bytes, uint64_t{4} << 20);
  EXPECT_EQ(spec->stats.at("remote_misses").size(), 2u);
  EXPECT_FALSE(spec->stats.at("written_pages").empty());  // by itself
}

// The good one with one line in place of another.
std::string With(const std::string& line, const std::string& replacement) {
  std::string text = kGood;
  const size_t at = text.find(line);
  EXPECT_NE(at, std::string::npos) << line;
  return text.replace(at, line.size(), replacement);
}

TEST(Spec, ErrorsNameTheLineAndTheKey) {
  const struct {
    const char *line, *replacement, *message;
  } cases[] = {
      {"name = \"all keys\"", "name = 7", "bad.toml:1: name: give a text in quotes"},
      {"name = \"all keys\"", "", "bad.toml:1: name: needed"},
      {"name = \"all keys\"", "name = \"all keys", "bad.toml:1: "},
      {"repetitions = 5", "repetitions = 0", "bad.toml:2: repetitions: give 1 to 1000"},
      {"repetitions = 5", "repetitions = -1", "bad.toml:2: repetitions: give a whole number"},
      {"repetitions = 5", "repititions = 5",
       "bad.toml:2: repititions: unknown key; known here are baselines, command, name, programs, "
       "repetitions, stats, sweep, timeout"},
      {"timeout = \"90s\"", "timeout = \"soon\"", "bad.toml:3: timeout: \"soon\": give a time"},
      {"timeout = \"90s\"", "timeout = \"0s\"", "bad.toml:3: timeout: \"0s\": give a time"},
      {"\"{program}\"]", "\"program\"]", "bad.toml:4: command: no argument is \"{program}\""},
      {"{local_bytes}", "{budget}",
       "bad.toml:4: command: \"--local-memory={budget}\" has {budget}, which is no placeholder; "
       "there are {faultline}, "},
      {"workload = \"zipf\"", "workload = \"zopf\"",
       "bad.toml:7: programs.workload: there is no workload \"zopf\"; known are sequential, "},
      {"workload = \"zipf\"", "", "programs.command: needed is either workload = "},
      {"size = \"64MiB\"", "size = \"64MB\"", "bad.toml:8: programs.size: "},
      {"size = \"64MiB\"", "", "bad.toml:6: programs.size: needed"},
      {"operations = 1000", "operations = \"1000\"",
       "bad.toml:9: programs.operations: give a whole number"},
      {"operations = 1000", "passes = 3", "bad.toml:7: programs.workload: zipf has no passes"},
      {"write-share = 0.25", "write-share = 25", "bad.toml:7: programs.workload: --write-share"},
      {"pin-cpu = true", "pin-cpu = 1", "bad.toml:13: programs.pin-cpu: give true or false"},
      {"name = \"sort a file\"", "name = \"zipf\"",
       "bad.toml:16: programs.name: there are two programs \"zipf\""},
      {"name = \"sort a file\"", "", "programs.name: needed with command"},
      {"command = [\"sort\", \"file with a blank\"]", "command = []",
       "bad.toml:17: programs.command: give a list of texts"},
      {"command = [\"sort\", \"file with a blank\"]", "command = [1, 2]",
       "bad.toml:17: programs.command: give a list of texts"},
      {"size = 1048576", "size = 1048576\nseed = 4", "bad.toml:19: programs.seed: unknown key"},
      {"50, 12.5", "50, 120", "bad.toml:22: sweep.local: \"120\" is no share: give percents"},
      {"50, 12.5", "50, 0", "bad.toml:22: sweep.local: \"0\" is no share"},
      {"local = [\"25%\"]", "policy = \"fifo\"", "bad.toml:28: sweep.local: needed"},
      {"programs = [\"zipf\"]", "programs = [\"zapf\"]",
       "bad.toml:26: sweep.programs: there is no program \"zapf\"; there are zipf, sort a file"},
      {"[baselines]", "[baselines]\nzram = true",
       "bad.toml:32: baselines.zram: unknown key; known here are plain, swap, swap-directory, "
       "swap-extra"},
      {"remote_misses =", "local_misses =", "bad.toml:38: stats.local_misses: no such figure"},
      {"[stats]", "[[stats.x]]", "stats.x: no such figure"},
      {"[baselines]", "[programs]", "bad.toml:31: "},
  };
  for (const auto& [line, replacement, message] : cases) {
    const absl::StatusOr<Spec> spec = ParseSpec(With(line, replacement), "bad.toml");
    ASSERT_FALSE(spec.ok()) << replacement;
    EXPECT_TRUE(absl::IsInvalidArgument(spec.status()));
    EXPECT_NE(std::string(spec.status().message()).find(message), std::string::npos)
        << spec.status().message() << "\nexpected: " << message;
  }
  EXPECT_FALSE(ParseSpec("", "empty.toml").ok());
  EXPECT_FALSE(ParseSpec("name = \"x\"\n", "few.toml").ok());
}

// What the documentation names can be run.
TEST(Spec, ThoseOfThisFolderAreGood) {
  int specs = 0;
  for (const auto& entry : std::filesystem::directory_iterator(FAULTLINE_SPECS)) {
    if (entry.path().extension() != ".toml") continue;  // a program of one
    std::ifstream file(entry.path());
    const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    const absl::StatusOr<Spec> spec = ParseSpec(text, entry.path());
    ASSERT_TRUE(spec.ok()) << spec.status();
    EXPECT_GT(PlanRuns(*spec).size(), 10u);
    ++specs;
  }
  EXPECT_GT(specs, 0);
}

}  // namespace
}  // namespace faultline::experiment
