// SPDX-License-Identifier: Apache-2.0
//
// faultline bench: what paging costs on this machine, beside what the machine itself costs,
// measured in turn in the same run. Absolute figures of a shared machine mean little; the ratios
// do.
#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "client/bench/floor.h"
#include "client/bench/local_stack.h"
#include "client/cli/command.h"
#include "proto/page.h"
#include "proto/units.h"

namespace faultline {
namespace {

struct BenchOptions {
  Transport transport = Transport::kTcp;
  int repetitions = 5;
  uint64_t pages = 20000;
  unsigned threads = 1;
  std::string size = "1GiB";
  std::string directory;
};

double Quantile(std::vector<double> values, double fraction) {
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(fraction * static_cast<double>(values.size() - 1))];
}

// One figure over all repetitions: ours, the floor's, and their ratio repetition by repetition.
struct Series {
  std::string name, unit;
  std::vector<double> ours, floor;

  nlohmann::json ToJson() const {
    const auto spread = [](const std::vector<double>& values) {
      return nlohmann::json{{"median", Quantile(values, 0.5)},
                            {"min", Quantile(values, 0)},
                            {"max", Quantile(values, 1)}};
    };
    std::vector<double> ratios;
    for (size_t i = 0; i < ours.size(); ++i) ratios.push_back(ours[i] / floor[i]);
    return {{"name", name},
            {"unit", unit},
            {"faultline", spread(ours)},
            {"floor", spread(floor)},
            {"ratio", spread(ratios)}};
  }
};

std::string CpuModel() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.rfind("model name", 0) == 0) return line.substr(line.find(':') + 2);
  }
  return "unknown processor";
}

void Report(const std::string& benchmark, const std::string& configuration,
            const std::vector<Series>& all, OutputFormat output) {
  utsname kernel{};
  uname(&kernel);
  const std::string machine = absl::StrCat(CpuModel(), ", ", sysconf(_SC_NPROCESSORS_ONLN),
                                           " CPUs, ", kernel.sysname, " ", kernel.release);
  nlohmann::json figures = nlohmann::json::array();
  for (const Series& series : all) figures.push_back(series.ToJson());
  if (output == OutputFormat::kJson) {
    printf("%s\n", nlohmann::json{{"benchmark", benchmark},
                                  {"machine", machine},
                                  {"configuration", configuration},
                                  {"figures", figures}}
                       .dump(2)
                       .c_str());
    return;
  }
  printf("%s\n  machine        %s\n  configuration  %s\n\n  %-16s %-26s %-26s %s\n",
         benchmark.c_str(), machine.c_str(), configuration.c_str(), "median [min-max]", "faultline",
         "floor", "ratio");
  for (const nlohmann::json& figure : figures) {
    const auto cell = [&](const char* what, const char* format) {
      const nlohmann::json& spread = figure[what];
      const auto number = [&](const char* key) {
        return absl::StrFormat(*absl::ParsedFormat<'f'>::New(format), spread[key].get<double>());
      };
      return absl::StrCat(number("median"), " [", number("min"), "-", number("max"), "]");
    };
    printf("  %-16s %-26s %-26s %s\n",
           absl::StrCat(figure["name"].get<std::string>(), " ", figure["unit"].get<std::string>())
               .c_str(),
           cell("faultline", "%.1f").c_str(), cell("floor", "%.1f").c_str(),
           cell("ratio", "%.2f").c_str());
  }
}

std::string TransportName(Transport transport) {
  return transport == Transport::kTcp ? "TCP loopback" : "Unix socket";
}

// A file of random bytes, which no codec makes smaller.
absl::Status WriteRandomFile(const std::string& path, uint64_t bytes) {
  std::ofstream file(path, std::ios::binary);
  std::mt19937_64 random(1);
  std::vector<uint64_t> block((1 << 20) / sizeof(uint64_t));
  for (uint64_t at = 0; at < bytes; at += block.size() * sizeof(uint64_t)) {
    for (uint64_t& word : block) word = random();
    file.write(reinterpret_cast<const char*>(block.data()),
               static_cast<std::streamsize>(
                   std::min<uint64_t>(block.size() * sizeof(uint64_t), bytes - at)));
  }
  file.close();
  return file ? absl::OkStatus()
              : absl::ResourceExhaustedError(absl::StrCat("cannot write ", path));
}

absl::Status FaultRandom(const BenchOptions& options, OutputFormat output) {
  absl::StatusOr<TemporaryDirectory> directory = TemporaryDirectory::Create(options.directory);
  if (!directory.ok()) return directory.status();
  absl::StatusOr<LocalStack> stack = LocalStack::Start(directory->path(), options.transport);
  if (!stack.ok()) return stack.status();
  const std::string input = directory->path() + "/input";
  absl::Status status = WriteRandomFile(input, options.pages * kPageSize);
  if (!status.ok()) return status;
  if (auto imported = stack->Faultline({"volume", "import", "bench", input}); !imported.ok()) {
    return imported.status();
  }

  std::vector<Series> series = {
      {"p50", "us", {}, {}}, {"p90", "us", {}, {}}, {"p99", "us", {}, {}}, {"max", "us", {}, {}}};
  for (int i = -1; i < options.repetitions; ++i) {
    absl::StatusOr<std::vector<double>> floor = MeasureUffdTcp(PageCount(options.pages));
    if (!floor.ok()) return floor.status();
    absl::StatusOr<std::string> touched =
        RunProgram({SiblingProgram("faultline-touch"), "--socket=" + stack->agent_socket(),
                    "--volume=bench", "--mode=random", absl::StrCat("--threads=", options.threads),
                    absl::StrCat("--seed=", i + 2)});
    if (!touched.ok()) return touched.status();
    if (i < 0) continue;  // warm-up
    const nlohmann::json result = nlohmann::json::parse(*touched);
    const double fractions[] = {0.5, 0.9, 0.99, 1};
    for (size_t s = 0; s < series.size(); ++s) {
      series[s].ours.push_back(result[series[s].name + "_us"]);
      series[s].floor.push_back(Quantile(*floor, fractions[s]));
    }
  }
  Report(
      "fault-random",
      absl::StrCat(options.pages, " pages of 4 KiB touched once in random order by ",
                   options.threads, " thread(s), ", TransportName(options.transport),
                   ", RocksDB with its data in the page cache, no prefetch, ", options.repetitions,
                   " repetitions after a warm-up; floor: uffd_tcp, 1 thread"),
      series, output);
  return absl::OkStatus();
}

absl::StatusOr<double> TimedMiBPerSecond(uint64_t bytes,
                                         const std::function<absl::Status()>& work) {
  const auto start = std::chrono::steady_clock::now();
  if (absl::Status status = work(); !status.ok()) return status;
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  return static_cast<double>(bytes) / (1 << 20) / seconds.count();
}

absl::Status ImportAndExport(const BenchOptions& options, OutputFormat output) {
  absl::StatusOr<uint64_t> bytes = ParseBytes(options.size);
  if (!bytes.ok()) return bytes.status();
  absl::StatusOr<TemporaryDirectory> directory = TemporaryDirectory::Create(options.directory);
  if (!directory.ok()) return directory.status();
  absl::StatusOr<LocalStack> stack = LocalStack::Start(directory->path(), options.transport);
  if (!stack.ok()) return stack.status();
  const std::string input = directory->path() + "/input";
  const std::string exported = directory->path() + "/output";
  absl::Status status = WriteRandomFile(input, *bytes);
  if (!status.ok()) return status;

  std::vector<Series> series = {{"import", "MiB/s", {}, {}}, {"export", "MiB/s", {}, {}}};
  for (int i = 0; i < options.repetitions; ++i) {
    const std::vector<std::vector<std::string>> commands = {
        {"volume", "import", "bench", input}, {"volume", "export", "--force", "bench", exported}};
    for (size_t s = 0; s < series.size(); ++s) {
      // Nobody's writes may be left over for the other to wait for.
      sync();
      absl::StatusOr<double> floor = MeasureDiskWrite(input, directory->path());
      if (!floor.ok()) return floor.status();
      sync();
      absl::StatusOr<double> ours =
          TimedMiBPerSecond(*bytes, [&] { return stack->Faultline(commands[s]).status(); });
      if (!ours.ok()) return ours.status();
      series[s].floor.push_back(*floor);
      series[s].ours.push_back(*ours);
    }
    if (auto deleted = stack->Faultline({"volume", "delete", "bench"}); !deleted.ok()) {
      return deleted.status();
    }
    unlink(exported.c_str());
  }
  Report("import",
         absl::StrCat(FormatBytes(*bytes),
                      " of random bytes through `faultline volume import` and "
                      "`export`, durable at the end, ",
                      TransportName(options.transport), ", ", options.repetitions,
                      " repetitions; floor: the same bytes written to the same disk in blocks of "
                      "1 MiB, fsync at the end"),
         series, output);
  return absl::OkStatus();
}

void AddCommonFlags(CLI::App* command, BenchOptions* options) {
  command->add_option("--transport", options->transport, "Between agent and server: tcp or unix")
      ->transform(CLI::CheckedTransformer(
          std::map<std::string, Transport>{{"tcp", Transport::kTcp}, {"unix", Transport::kUnix}}))
      ->option_text("tcp|unix [tcp]");
  command->add_option("--repetitions", options->repetitions, "How often everything is measured")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command->add_option("--directory", options->directory,
                      "Where store and files are put for the time of the run [/var/tmp]");
}

}  // namespace

void RegisterBenchCommand(CLI::App* app, Session* session) {
  auto options = std::make_shared<BenchOptions>();
  CLI::App* bench = app->add_subcommand(
      "bench",
      "Measures, with a server and an agent of its own on loopback, what paging costs beside what "
      "this machine cannot go below");
  bench->require_subcommand(1);

  CLI::App* fault_random = bench->add_subcommand(
      "fault-random", "Latency of single demand faults, as the faulting thread sees it");
  AddCommonFlags(fault_random, options.get());
  fault_random->add_option("--pages", options->pages, "Pages (4 KiB) of the volume")
      ->check(CLI::Range(uint64_t{100}, uint64_t{1} << 24))
      ->capture_default_str();
  fault_random->add_option("--threads", options->threads, "Faulting threads")
      ->check(CLI::Range(1u, 1024u))
      ->capture_default_str();
  fault_random->callback(
      [=] { session->run = [=] { return FaultRandom(*options, session->output); }; });

  CLI::App* import = bench->add_subcommand("import", "Speed of volume import and export");
  AddCommonFlags(import, options.get());
  import->add_option("--size", options->size, "Bytes of the volume, such as 256MiB or 1GiB")
      ->capture_default_str();
  import->callback(
      [=] { session->run = [=] { return ImportAndExport(*options, session->output);
};
}  // namespace faultline
);
}

}  // namespace faultline
