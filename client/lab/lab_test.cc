// SPDX-License-Identifier: Apache-2.0
//
// The lab on the running kernel. What it counts is tested, what it times is not.
#include <absl/strings/match.h>
#include <errno.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>
#include <set>
#include <thread>

#include <nlohmann/json.hpp>

#include "client/lab/lab_locks.h"
#include "client/lab/lock_cell.h"
#include "client/lab/protocol_cell.h"
#include "client/uffd/test_memory.h"

namespace faultline {
namespace {

LabOptions Quick() {
  LabOptions options;
  options.scale = LabScale::kQuick;
  return options;
}

void NoProgress(size_t, size_t) {}

TEST(LabLocks, EveryRowHasFiguresOrSaysThatTheKernelLacksTheOperation) {
  FAULTLINE_REQUIRE_UFFD();
  LabOptions options = Quick();
  options.part = LabPart::kLocks;
  size_t last = 0, cells = 0;
  const absl::StatusOr<LabResult> result = RunLocks(options, [&](size_t done, size_t all) {
    EXPECT_GE(done, last);
    last = done;
    cells = all;
  });
  ASSERT_TRUE(result.ok()) << result.status();
  // 6 operations, 2 chunks, 1 and 2 threads, 4 kinds of churn.
  ASSERT_EQ(result->locks.size(), 6u * 2 * 2 * 4);
  EXPECT_EQ(last, result->locks.size());
  EXPECT_EQ(cells, result->locks.size());
  EXPECT_TRUE(result->protocol.empty());
  std::set<std::string> operations;
  for (const LabRow& row : result->locks) {
    operations.insert(std::string(row.Key("operation")));
    if (!row.note.empty()) {
      EXPECT_EQ(row.note, "not on this kernel");
      EXPECT_TRUE(row.metrics.empty());
      continue;
    }
    const bool churns = row.Key("churn") != "off";
    EXPECT_EQ(row.Get("churn_calls_per_second").median > 0, churns) << row.Key("churn");
    EXPECT_EQ(row.Get("mremap_max_us").median > 0, churns);
    EXPECT_TRUE(churns || row.Get("fill_pages_per_second").median > 0) << row.Key("operation");
    // Only registered memory raises events, and only where they are asked for.
    EXPECT_EQ(row.Get("events_per_second").median > 0, row.Key("events") == "yes")
        << row.Key("operation") << ", churn " << row.Key("churn");
    EXPECT_TRUE(row.Key("events") == "yes" || row.Get("refused_per_second").median == 0)
        << row.Key("operation") << ", churn " << row.Key("churn");
  }
  EXPECT_EQ(operations, (std::set<std::string>{"COPY", "ZEROPAGE", "CONTINUE", "MOVE", "POISON",
                                               "WRITEPROTECT"}));
}

TEST(LabProtocol, NoPageIsStaleWhereTheMonitorLocksAcrossRead) {
  FAULTLINE_REQUIRE_UFFD();
  LabOptions options = Quick();
  options.part = LabPart::kProtocol;
  const absl::StatusOr<LabResult> result = RunLocks(options, NoProgress);
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(result->protocol.size(), 9u);
  int across = 0;
  for (const LabRow& row : result->protocol) {
    EXPECT_GT(row.Sum("discards"), 0);
    EXPECT_GT(row.Get("wait_max_us").median, 0);
    EXPECT_LE(row.Sum("stale_discards"), row.Sum("discards"));
    EXPECT_LE(row.Sum("stale_discards"), row.Sum("stale_pages"));
    if (row.Key("monitor") != "lock across read") continue;
    ++across;
    // On a kernel before 6.9 as well: there the monitor's lock is all there is.
    EXPECT_EQ(row.Sum("stale_pages"), 0) << row.Key("kernel");
  }
  EXPECT_EQ(across, 3);
}

// A fill that has been admitted by a modelled kernel and waits before its ioctl.
class HeldFill {
 public:
  void operator()() {
    std::unique_lock lock(mu_);
    held_ = true;
    changed_.notify_all();
    changed_.wait(lock, [this] { return released_; });
  }
  void WaitUntilHeld() {
    std::unique_lock lock(mu_);
    changed_.wait(lock, [this] { return held_; });
  }
  void Release() {
    const std::lock_guard lock(mu_);
    released_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex mu_;
  std::condition_variable changed_;
  bool held_ = false, released_ = false;
};

class ModelledChannel : public testing::TestWithParam<DiscardKernel> {
 protected:
  void Start() {
    auto created = CreateModelledChannel(GetParam(), memory_.range(), [this] { held_fill_(); });
    ASSERT_TRUE(created.ok()) << created.status();
    channel_ = *std::move(created);
    fill_ = std::thread(
        [this] { filled_ = channel_->Copy(memory_.address(), page_.data(), kPageSize); });
    held_fill_.WaitUntilHeld();
  }
  void EndFill() {
    held_fill_.Release();
    fill_.join();
    EXPECT_EQ(filled_.error, 0);
  }

  const std::string page_ = std::string(kPageSize, 'x');
  TestMemory memory_{MemoryKind::kAnonymous, PageCount(4)};
  HeldFill held_fill_;
  std::unique_ptr<DiscardChannel> channel_;
  std::thread fill_;
  FillResult filled_;
};

using ExclusiveWait = ModelledChannel;
using FireAndForget = ModelledChannel;
INSTANTIATE_TEST_SUITE_P(Model, ExclusiveWait, testing::Values(DiscardKernel::kModelExclusive));
INSTANTIATE_TEST_SUITE_P(Model, FireAndForget, testing::Values(DiscardKernel::kModelFireForget));

TEST_P(ExclusiveWait, AnEventCanBeReadOnlyWhenTheFillUnderWayHasEnded) {
  FAULTLINE_REQUIRE_UFFD();
  Start();
  ASSERT_FALSE(HasFatalFailure());
  std::thread target([this] { EXPECT_TRUE(channel_->Discard(memory_.range()).ok()); });
  EXPECT_FALSE(channel_->ReadEvent().has_value());
  EndFill();
  ASSERT_TRUE(channel_->WaitForEvent());
  // Its page was there before the zap, and is gone with it.
  EXPECT_EQ(channel_->ReadEvent(), memory_.range());
  target.join();
  unsigned char present = 0;
  ASSERT_EQ(mincore(reinterpret_cast<void*>(memory_.address()), kPageSize, &present), 0);
  EXPECT_EQ(present & 1, 0);
}

TEST_P(FireAndForget, AFillUnderWayOutlivesTheDiscardAndLeavesAStalePage) {
  FAULTLINE_REQUIRE_UFFD();
  Start();
  ASSERT_FALSE(HasFatalFailure());
  std::thread target([this] { EXPECT_TRUE(channel_->Discard(memory_.range()).ok()); });
  ASSERT_TRUE(channel_->WaitForEvent());
  // New fills are told, as by the kernel that runs.
  EXPECT_EQ(channel_->Copy(memory_.address(), page_.data(), kPageSize).error, EAGAIN);
  EXPECT_EQ(channel_->ReadEvent(), memory_.range());
  target.join();
  EndFill();
  EXPECT_EQ(memory_.Read(0, 1), "x");
}

TEST(LockCell, AnErrorOfTheKernelNamesTheOperation) {
  FAULTLINE_REQUIRE_UFFD();
  LockCell cell;
  cell.chunk_bytes = kPageSize / 2;
  const auto figures = MeasureLocks(cell, std::chrono::milliseconds(1), 1 << 20);
  EXPECT_EQ(figures.status(), absl::InternalError("UFFDIO_COPY: Invalid argument"));
}

LabResult Sample() {
  LabResult result;
  result.machine = "a machine";
  LabRow row;
  row.keys = {{"operation", "COPY"}, {"lock", "per-VMA"},    {"chunk", "4KiB"},
              {"threads", "1"},      {"churn", "unrelated"}, {"events", "no"}};
  for (const double value : {3000.0, 1000.0, 2000.0}) row.Add("fill_pages_per_second", value);
  result.locks.push_back(row);
  row.keys[0].second = "MOVE";
  row.metrics.clear();
  row.note = "not on this kernel";
  result.locks.push_back(row);
  return result;
}

TEST(LabResult, MedianAndExtremesAreOfAllRepetitions) {
  const Spread spread = Sample().locks[0].Get("fill_pages_per_second");
  EXPECT_EQ(spread.median, 2000);
  EXPECT_EQ(spread.min, 1000);
  EXPECT_EQ(spread.max, 3000);
  EXPECT_EQ(Sample().locks[0].Sum("fill_pages_per_second"), 6000);
}

TEST(LabResult, CsvHasAsManyFieldsInEveryLine) {
  EXPECT_EQ(RowsToCsv(Sample().locks),
            "operation,lock,chunk,threads,churn,events,note,fill_pages_per_second,"
            "fill_pages_per_second_min,fill_pages_per_second_max\n"
            "COPY,per-VMA,4KiB,1,unrelated,no,,2000,1000,3000\n"
            "MOVE,per-VMA,4KiB,1,unrelated,no,not on this kernel,,,\n");
  EXPECT_EQ(RowsToCsv({}), "");
}

TEST(LabResult, TextAndJsonSayWhatTheKernelLacks) {
  const std::string text = FormatLab(Sample());
  EXPECT_TRUE(absl::StrContains(text, "2000 [1000-3000]")) << text;
  EXPECT_TRUE(absl::StrContains(text, "not on this kernel\n")) << text;
  const nlohmann::ordered_json json = LabToJson(Sample());
  EXPECT_EQ(json["locks"][0]["fill_pages_per_second"]["median"], 2000);
  EXPECT_EQ(json["locks"][1]["note"], "not on this kernel");
  EXPECT_FALSE(json["locks"][1].contains("fill_pages_per_second"));
}

TEST(LabResult, APlotQuotesWhatIsNotItsOwn) {
  LabResult result = Sample();
  result.machine = "a \"quoted\" machine";
  const std::string script = LabToGnuplot(result, "svg", "it's.svg");
  EXPECT_TRUE(absl::StrContains(script, "set output 'it''s.svg'")) << script;
  EXPECT_TRUE(absl::StrContains(script, "\"a 'quoted' machine\"")) << script;
  EXPECT_TRUE(absl::StrContains(script, "\nMOVE - - - -\n")) << script;
}

TEST(LabCommand, APlotOfAnUnknownKindIsRefusedBeforeAnythingIsMeasured) {
  LabOptions options = Quick();
  options.plot_path = "plot.gif";
  const absl::Status status = LocksCommand(options, LabOutput::kText);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "--plot=plot.gif: the name must end in .png or .svg");
}

TEST(LabCommand, TheSecondTableHasAFileOfItsOwn) {
  EXPECT_EQ(ProtocolCsvPath("a/locks.csv"), "a/locks-protocol.csv");
  EXPECT_EQ(ProtocolCsvPath("locks"), "locks-protocol");
}

}  // namespace
}  // namespace faultline
