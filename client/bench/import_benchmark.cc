// SPDX-License-Identifier: Apache-2.0
//
// import: whole images, in and out.
#include <absl/strings/str_cat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "client/bench/benchmark.h"
#include "client/bench/floor.h"
#include "client/bench/process_cpu.h"
#include "client/bench/stage.h"

namespace faultline::bench {
namespace {

absl::StatusOr<double> TimedMiBPerSecond(uint64_t bytes,
                                         const std::function<absl::Status()>& work) {
  const auto start = std::chrono::steady_clock::now();
  if (absl::Status status = work(); !status.ok()) return status;
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  return static_cast<double>(bytes) / (1 << 20) / seconds.count();
}

absl::Status CompareFiles(const std::string& expected, const std::string& found) {
  std::ifstream a(expected, std::ios::binary), b(found, std::ios::binary);
  std::string block_a(1 << 20, '\0'), block_b(1 << 20, '\0');
  do {
    a.read(block_a.data(), static_cast<std::streamsize>(block_a.size()));
    b.read(block_b.data(), static_cast<std::streamsize>(block_b.size()));
    if (a.gcount() != b.gcount() ||
        !std::equal(block_a.begin(), block_a.begin() + a.gcount(), block_b.begin())) {
      return absl::DataLossError("what was exported is not what was imported");
    }
  } while (a && b);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Report> ImportAndExport(const BenchOptions& options) {
  absl::StatusOr<Stage> stage = Stage::Set(options);
  if (!stage.ok()) return stage.status();
  const std::string input = stage->path("input"), exported = stage->path("output");
  absl::Status status = stage->WriteFile(input, stage->content());
  if (!status.ok()) return status;
  const struct {
    const char* name;
    std::vector<std::string> command;
  } steps[] = {{"import", {"volume", "import", kBenchVolume, input, "--codec=" + options.codec}},
               {"export", {"volume", "export", "--force", kBenchVolume, exported}}};
  const uint64_t bytes = options.pages * kPageSize;
  Report report;
  for (int i = 0; i < options.repetitions; ++i) {
    for (const auto& [name, command] : steps) {
      // Nobody's writes may be left over for the other to wait for.
      sync();
      absl::StatusOr<double> floor = MeasureDiskWrite(input, stage->path(""));
      if (!floor.ok()) return floor.status();
      sync();
      const CpuWatch server_cpu(stage->stack().server_pid());
      absl::StatusOr<double> ours = TimedMiBPerSecond(
          bytes, [&, &command = command] { return stage->stack().Faultline(command).status(); });
      if (!ours.ok()) return ours.status();
      report.AddFigure(name, "MiB/s", *ours, "disk_write", *floor);
      report.AddDetail(absl::StrCat("server CPU, ", name), "us/page",
                       server_cpu.Micros() / static_cast<double>(options.pages));
    }
    status = CompareFiles(input, exported);
    if (!status.ok()) return status;
    status = stage->stack().Faultline({"volume", "delete", kBenchVolume}).status();
    if (!status.ok()) return status;
    unlink(exported.c_str());
  }
  report.configuration = absl::StrCat(
      stage->Describe(),
      "; through `faultline volume import` and `export`, durable at the end; "
      "disk_write: the same bytes written to the same disk in blocks of 1 MiB, fsync at the end");
  return report;
}

}  // namespace faultline::bench
