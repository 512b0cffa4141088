// SPDX-License-Identifier: Apache-2.0
#include "client/lab/lab_locks.h"

#include <absl/strings/str_cat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <fstream>
#include <utility>
#include <vector>

#include "client/lab/lock_cell.h"
#include "client/lab/protocol_cell.h"

namespace faultline {
namespace {

constexpr FillOp kOps[] = {FillOp::kCopy, FillOp::kZeropage, FillOp::kContinue,
                           FillOp::kMove, FillOp::kPoison,   FillOp::kWriteprotect};
constexpr uint64_t kChunks[] = {4 << 10, 256 << 10};
// Without churn on registered memory there is nothing that an event could tell of, so that asking
// for events changes nothing.
constexpr std::pair<Churn, Events> kChurns[] = {{Churn::kOff, Events::kNotRequested},
                                                {Churn::kUnrelated, Events::kNotRequested},
                                                {Churn::kSameVma, Events::kNotRequested},
                                                {Churn::kSameVma, Events::kRequested}};
constexpr DiscardKernel kKernels[] = {DiscardKernel::kRunning, DiscardKernel::kModelExclusive,
                                      DiscardKernel::kModelFireForget};
constexpr MonitorProtocol kProtocols[] = {MonitorProtocol::kLockAcrossRead,
                                          MonitorProtocol::kLockAfterRead,
                                          MonitorProtocol::kFlagBeforeRead};
// Rare events need more time than averages, the more so in a quick run.
int ProtocolCellMilliseconds(const LabOptions& options) {
  return (options.scale == LabScale::kQuick ? 10 : 4) * options.cell_milliseconds;
}
// Threads that fill of the second table. Races need target and fills to run at the same time.
size_t ProtocolThreads() { return sysconf(_SC_NPROCESSORS_ONLN) <= 2 ? 1 : 2; }

// Whether fills take the per-VMA lock and events wait for them, by the kernel's release.
bool IsSince6_9(const utsname& kernel) {
  int major = 0, minor = 0;
  if (sscanf(kernel.release, "%d.%d", &major, &minor) != 2) return false;
  return major > 6 || (major == 6 && minor >= 9);
}

std::string CpuModel() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.rfind("model name", 0) == 0) return line.substr(line.find(':') + 2);
  }
  return "unknown processor";
}

LabOptions WithDefaults(LabOptions options) {
  const bool quick = options.scale == LabScale::kQuick;
  if (options.threads_max == 0) options.threads_max = quick ? 2 : 4;
  if (options.repetitions == 0) options.repetitions = quick ? 1 : 3;
  if (options.cell_milliseconds == 0) options.cell_milliseconds = quick ? 15 : 250;
  if (options.memory_bytes == 0) options.memory_bytes = (quick ? 4u : 128u) << 20;
  return options;
}

// 1, 2, 4, ... and `max` itself.
std::vector<size_t> ThreadCounts(size_t max) {
  std::vector<size_t> counts;
  for (size_t n = 1; n < max; n *= 2) counts.push_back(n);
  counts.push_back(max);
  return counts;
}

void AddQuantiles(LabRow* row, const std::string& name, const Quantiles& quantiles) {
  row->Add(name + "_p50_us", quantiles.p50);
  row->Add(name + "_p99_us", quantiles.p99);
  row->Add(name + "_max_us", quantiles.max);
}

class LocksRun {
 public:
  LocksRun(const LabOptions& options, uint64_t kernel_features)
      : options_(WithDefaults(options)), kernel_features_(kernel_features) {
    uname(&kernel_);
    result_.machine =
        absl::StrCat(CpuModel(), ", ", sysconf(_SC_NPROCESSORS_ONLN), " CPUs, ", kernel_.sysname,
                     " ", kernel_.release,
                     IsSince6_9(kernel_) ? " (fills take the per-VMA lock, events wait for fills)"
                                         : " (before 6.9: fills take mmap_lock)");
    result_.configuration = absl::StrCat(
        options_.repetitions, " repetitions of ", options_.cell_milliseconds,
        " ms for each row of the first table and ", ProtocolCellMilliseconds(options_),
        " ms of the second, ", options_.memory_bytes >> 20, " MiB filled in a round, up to ",
        options_.threads_max, " threads (", ProtocolThreads(), " of the second table), ",
        options_.churn_pause_micros, " us between two rounds of churn, seed ", options_.seed);
    if (options_.part != LabPart::kProtocol) AddLockRows();
    if (options_.part != LabPart::kLocks) AddProtocolRows();
  }

  absl::StatusOr<LabResult> Run(const std::function<void(size_t, size_t)>& progress) {
    const size_t each = lock_cells_.size() + protocol_cells_.size();
    const size_t all = each * static_cast<size_t>(options_.repetitions);
    size_t done = 0;
    // All rows in turn, so that what disturbs the machine for a while does not hit one row alone.
    for (int i = 0; i < options_.repetitions; ++i) {
      for (size_t row = 0; row < lock_cells_.size(); ++row) {
        progress(done++, all);
        if (absl::Status status = MeasureLockRow(row); !status.ok()) return status;
      }
      for (size_t row = 0; row < protocol_cells_.size(); ++row) {
        progress(done++, all);
        if (absl::Status status = MeasureProtocolRow(row, static_cast<uint64_t>(i)); !status.ok()) {
          return status;
        }
      }
    }
    progress(all, all);
    return result_;
  }

 private:
  void AddLockRows();
  void AddProtocolRows();
  absl::Status MeasureLockRow(size_t row);
  absl::Status MeasureProtocolRow(size_t row, uint64_t repetition);

  const LabOptions options_;
  const uint64_t kernel_features_;
  utsname kernel_{};
  LabResult result_;
  // Row by row those of result_.
  std::vector<LockCell> lock_cells_;
  std::vector<ProtocolCell> protocol_cells_;
};

void LocksRun::AddLockRows() {
  for (const FillOp op : kOps) {
    const bool per_vma = op != FillOp::kWriteprotect && IsSince6_9(kernel_);
    for (const uint64_t chunk : kChunks) {
      for (const size_t threads : ThreadCounts(options_.threads_max)) {
        for (const auto& [churn, events] : kChurns) {
          LabRow row;
          row.keys = {{"operation", FillOpName(op)},
                      {"lock", per_vma ? "per-VMA" : "mmap_lock"},
                      {"chunk", absl::StrCat(chunk >> 10, "KiB")},
                      {"threads", absl::StrCat(threads)},
                      {"churn", ChurnName(churn)},
                      {"events", events == Events::kRequested ? "yes" : "no"}};
          if ((FeaturesOf(op) & ~kernel_features_) != 0) row.note = "not on this kernel";
          result_.locks.push_back(std::move(row));
          lock_cells_.push_back({op, chunk, threads, churn, events,
                                 static_cast<uint64_t>(options_.churn_pause_micros) * 1000});
        }
      }
    }
  }
}

void LocksRun::AddProtocolRows() {
  for (const DiscardKernel kernel : kKernels) {
    for (const MonitorProtocol protocol : kProtocols) {
      LabRow row;
      std::string name = DiscardKernelName(kernel);
      if (kernel == DiscardKernel::kRunning) {
        name += IsSince6_9(kernel_) ? ": exclusive wait" : ": fire and forget";
      }
      row.keys = {{"kernel", name}, {"monitor", MonitorProtocolName(protocol)}};
      result_.protocol.push_back(std::move(row));
      protocol_cells_.push_back({kernel, protocol, ProtocolThreads()});
    }
  }
}

absl::Status LocksRun::MeasureLockRow(size_t index) {
  LabRow& row = result_.locks[index];
  if (!row.note.empty()) return absl::OkStatus();
  const absl::StatusOr<LockFigures> figures =
      MeasureLocks(lock_cells_[index], std::chrono::milliseconds(options_.cell_milliseconds),
                   options_.memory_bytes);
  if (!figures.ok()) {
    std::string cell;
    for (const auto& [name, value] : row.keys) absl::StrAppend(&cell, " ", name, "=", value);
    return absl::Status(figures.status().code(),
                        absl::StrCat(figures.status().message(), " (in the row", cell, ")"));
  }
  row.Add("fill_pages_per_second", figures->pages_per_second);
  AddQuantiles(&row, "fill", figures->fill);
  row.Add("refused_per_second", figures->refused_per_second);
  row.Add("churn_calls_per_second", figures->churn_calls_per_second);
  AddQuantiles(&row, "map", figures->map);
  AddQuantiles(&row, "mremap", figures->mremap);
  AddQuantiles(&row, "madvise", figures->madvise);
  row.Add("events_per_second", figures->events_per_second);
  return absl::OkStatus();
}

absl::Status LocksRun::MeasureProtocolRow(size_t index, uint64_t repetition) {
  const absl::StatusOr<ProtocolFigures> figures = MeasureProtocol(
      protocol_cells_[index], std::chrono::milliseconds(ProtocolCellMilliseconds(options_)),
      options_.seed + repetition);
  if (!figures.ok()) return figures.status();
  LabRow& row = result_.protocol[index];
  const auto discards = static_cast<double>(figures->discards);
  const auto stale = static_cast<double>(figures->stale_discards);
  row.Add("discards", discards);
  row.Add("stale_discards", stale);
  row.Add("stale_percent", discards == 0 ? 0 : 100 * stale / discards);
  row.Add("stale_pages", static_cast<double>(figures->stale_pages));
  row.Add("fill_pages", static_cast<double>(figures->fills));
  row.Add("racing_fill_pages", static_cast<double>(figures->racing_fills));
  row.Add("refused_fills", static_cast<double>(figures->refused));
  AddQuantiles(&row, "wait", figures->wait);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<LabResult> RunLocks(const LabOptions& options,
                                   const std::function<void(size_t done, size_t all)>& progress) {
  const absl::StatusOr<uint64_t> features = LabUffd::KernelFeatures();
  if (!features.ok()) return features.status();
  return LocksRun(options, *features).Run(progress);
}

}  // namespace faultline
