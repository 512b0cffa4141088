// SPDX-License-Identifier: Apache-2.0
//
// writeback: what an agent does with memory that it evicts.
#include <absl/strings/str_cat.h>
#include <absl/time/clock.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "client/bench/benchmark.h"
#include "client/bench/floor.h"
#include "client/bench/process_cpu.h"
#include "client/bench/stage.h"
#include "client/bench/statistics.h"
#include "client/remote/page_server.h"
#include "proto/mutex.h"

namespace faultline::bench {
namespace {

// Batches that are under way at a time.
constexpr int kWindow = 4;
constexpr absl::Duration kPatience = absl::Seconds(60);

// Writes batches, a few at a time, and times their acknowledgements.
class Writer {
 public:
  explicit Writer(PageSink* sink) : sink_(sink) {}

  // Writes all of `memory`, in batches of so many pages. Returns when all are acknowledged, or one
  // was refused.
  absl::Status WriteAll(const std::vector<std::byte>& memory, uint64_t batch_pages) {
    const uint64_t pages = memory.size() / kPageSize;
    std::vector<PageToWrite> batch;
    for (uint64_t first = 0; first < pages; first += batch_pages) {
      {
        const MutexLock lock(mu_);
        while (under_way_ == kWindow) changed_.Wait(mu_);
        if (!status_.ok()) break;
        ++under_way_;
      }
      batch.clear();
      for (uint64_t page = first; page < std::min(pages, first + batch_pages); ++page) {
        batch.push_back({PageIndex(page), memory.data() + page * kPageSize});
      }
      const absl::Time begun = absl::Now();
      sink_->Write(batch, begun + kPatience,
                   [this, begun](absl::Status status) { Acknowledged(begun, std::move(status)); });
    }
    const MutexLock lock(mu_);
    while (under_way_ > 0) changed_.Wait(mu_);
    return status_;
  }

  // Only when WriteAll() has returned.
  std::vector<double> TakeMicros() {
    const MutexLock lock(mu_);
    return std::move(micros_);
  }

 private:
  void Acknowledged(absl::Time begun, absl::Status status) {
    const MutexLock lock(mu_);
    micros_.push_back(absl::ToDoubleMicroseconds(absl::Now() - begun));
    if (status_.ok()) status_ = std::move(status);
    --under_way_;
    changed_.SignalAll();
  }

  PageSink* const sink_;
  Mutex mu_;
  CondVar changed_;
  int under_way_ ABSL_GUARDED_BY(mu_) = 0;
  absl::Status status_ ABSL_GUARDED_BY(mu_);
  std::vector<double> micros_ ABSL_GUARDED_BY(mu_);
};

struct Floors {
  double disk = 0, stream = 0;
};

absl::StatusOr<Floors> MeasureFloors(const Stage& stage, const BenchOptions& options) {
  // Nobody's writes may be left over for the other to wait for.
  sync();
  absl::StatusOr<double> disk = MeasureDiskWrite(stage.path("input"), stage.path(""));
  if (!disk.ok()) return disk.status();
  sync();
  absl::StatusOr<double> stream = MeasureTcpStream(options.pages * kPageSize, options.stack.link);
  if (!stream.ok()) return stream.status();
  return Floors{*disk, *stream};
}

absl::Status AddRepetition(const Stage& stage, const BenchOptions& options, uint64_t seed,
                           PageServer* server, Report* report) {
  // New bytes each time: those of the last time would be wrong ones.
  const PageContent content = stage.content(seed);
  std::vector<std::byte> memory(options.pages * kPageSize);
  for (uint64_t page = 0; page < options.pages; ++page) {
    content.Fill(PageIndex(page), memory.data() + page * kPageSize);
  }
  absl::StatusOr<Floors> floors = MeasureFloors(stage, options);
  if (!floors.ok()) return floors.status();
  absl::StatusOr<VolumeIo> volume = server->OpenVolumeIo(kBenchVolume, absl::Now() + kPatience);
  if (!volume.ok()) return volume.status();
  const CpuWatch client_cpu(getpid()), server_cpu(stage.stack().server_pid());
  Writer writer(volume->sink.get());
  const absl::Time start = absl::Now();
  absl::Status status = writer.WriteAll(memory, options.batch_pages);
  if (!status.ok()) return status;
  const double seconds = absl::ToDoubleSeconds(absl::Now() - start);
  const auto pages = static_cast<double>(options.pages);
  const double client_micros = client_cpu.Micros(), server_micros = server_cpu.Micros();
  const double mib_per_second = pages * static_cast<double>(kPageSize) / (1 << 20) / seconds;
  report->AddFigure("throughput", "MiB/s", mib_per_second, "disk_write", floors->disk);
  report->AddFigure("throughput", "MiB/s", mib_per_second, "tcp_stream", floors->stream);
  report->AddDetail("written", "pages/s", pages / seconds);
  const std::vector<double> micros = writer.TakeMicros();
  report->AddDetail("batch to ack, p50", "us", Quantile(micros, 0.5));
  report->AddDetail("batch to ack, p99", "us", Quantile(micros, 0.99));
  report->AddDetail("batch to ack, max", "us", Quantile(micros, 1));
  report->AddDetail("client CPU", "us/page", client_micros / pages);
  report->AddDetail("server CPU", "us/page", server_micros / pages);
  TouchPlan plan;
  plan.mode = "seq";
  plan.threads = 4;
  plan.content = content;
  return stage.Touch(stage.stack().agent(), plan).status();
}

}  // namespace

absl::StatusOr<Report> Writeback(const BenchOptions& options) {
  absl::StatusOr<Codec> codec = ParseCodec(options.codec);
  if (!codec.ok()) return codec.status();
  absl::StatusOr<Stage> stage = Stage::Set(options);
  if (!stage.ok()) return stage.status();
  absl::Status status = stage->WriteFile(stage->path("input"), stage->content());
  if (!status.ok()) return status;
  status = stage->stack()
               .Faultline({"volume", "create", kBenchVolume,
                           absl::StrCat("--size=", options.pages * kPageSize),
                           "--durability=" + options.durability})
               .status();
  if (!status.ok()) return status;
  absl::StatusOr<std::unique_ptr<PageServer>> server =
      PageServer::Create({.address = stage->stack().address_for_agents(),
                          .tls = stage->stack().tls(),
                          .write_codec = *codec});
  if (!server.ok()) return server.status();
  Report report;
  for (int i = 0; i < options.repetitions; ++i) {
    status = AddRepetition(*stage, options, static_cast<uint64_t>(i) + 1, server->get(), &report);
    if (!status.ok()) return status;
  }
  report.configuration = absl::StrCat(
      stage->Describe(), ", batches of ", options.batch_pages, " pages, ", kWindow,
      " at a time, durability ", options.durability,
      "; disk_write: the same number of bytes written to the same disk in blocks of 1 MiB, fsync "
      "at the end; tcp_stream: one TCP connection");
  return report;
}

}  // namespace faultline::bench
