// SPDX-License-Identifier: Apache-2.0
#include "proto/page_batch.h"

#include <absl/strings/str_cat.h>
#include <gtest/gtest.h>
#include <string.h>

#include <array>
#include <string>
#include <vector>

#include "proto/page_testing.h"

namespace faultline {
namespace {

using Page = std::array<std::byte, kPageSize>;

Page Filled(uint8_t value) {
  Page page;
  page.fill(static_cast<std::byte>(value));
  return page;
}

std::string RunsOf(const rpc::PageBatch& batch) {
  std::string text;
  for (const rpc::PageRun& run : batch.runs()) {
    absl::StrAppend(&text, run.kind() == rpc::PageRun::ZERO ? "zero " : "data ", run.first(), "+",
                    run.count(), " ");
  }
  return text;
}

rpc::PageRun* AddRun(rpc::PageBatch* batch, uint64_t first, uint64_t count, int kind) {
  rpc::PageRun* run = batch->add_runs();
  run->set_first(first);
  run->set_count(count);
  run->set_kind(static_cast<rpc::PageRun::Kind>(kind));
  return run;
}

// What ForEachPage hands out, as text; the pages are decoded and named by their first byte.
absl::StatusOr<std::string> Read(const rpc::PageBatch& batch) {
  std::string text;
  const absl::Status status = ForEachPage(
      batch,
      [&text](PageIndex page, absl::string_view encoded) {
        Page scratch;
        absl::StatusOr<PageBytes> bytes = DecodePage(page, encoded, scratch);
        if (!bytes.ok()) return bytes.status();
        absl::StrAppend(&text, page.raw(), "=", static_cast<int>((*bytes)[0]), " ");
        return absl::OkStatus();
      },
      [&text](PageRange zero) {
        absl::StrAppend(&text, "zero ", zero.first.raw(), "+", zero.count.raw(), " ");
        return absl::OkStatus();
      });
  if (!status.ok()) return status;
  return text;
}

TEST(PageBatchBuilder, NeighboursOfOneKindBecomeOneRun) {
  rpc::PageBatch batch;
  PageBatchBuilder builder(&batch);
  for (const uint64_t page : {3, 4, 5, 9}) {
    builder.Encode(PageIndex(page), Filled(static_cast<uint8_t>(page)), Codec::kLz4);
  }
  builder.AddZero({PageIndex(10), PageCount(2)});
  builder.AddZero({PageIndex(12), PageCount(0)});
  builder.Encode(PageIndex(12), Filled(0), Codec::kRaw);
  builder.Encode(PageIndex(13), Filled(13), Codec::kRaw);
  EXPECT_EQ(RunsOf(batch), "data 3+3 data 9+1 zero 10+3 data 13+1 ");
  EXPECT_EQ(builder.page_count().raw(), 8u);
  EXPECT_EQ(builder.payload_bytes(), batch.pages().size());
  EXPECT_EQ(Read(batch).value_or("error"), "3=3 4=4 5=5 9=9 zero 10+3 13=13 ");
}

TEST(PageBatchBuilder, PagesOutOfOrderKeepTheirOrder) {
  rpc::PageBatch batch;
  PageBatchBuilder builder(&batch);
  for (const uint64_t page : {5, 4, 4}) {
    builder.Encode(PageIndex(page), Filled(static_cast<uint8_t>(page)), Codec::kRaw);
  }
  EXPECT_EQ(RunsOf(batch), "data 5+1 data 4+1 data 4+1 ");
  EXPECT_EQ(Read(batch).value_or("error"), "5=5 4=4 4=4 ");
}

TEST(PageBatchBuilder, EncodedPagesOfZerosLoseTheirPayload) {
  std::string zero;
  EncodeZeroPage(PageIndex(1), &zero);
  std::string data;
  EncodePage(PageIndex(2), Filled(2), Codec::kRaw, &data);
  rpc::PageBatch batch;
  PageBatchBuilder builder(&batch);
  builder.Add(PageIndex(1), zero);
  builder.Add(PageIndex(2), data);
  EXPECT_EQ(RunsOf(batch), "zero 1+1 data 2+1 ");
  EXPECT_EQ(batch.pages(), data);
}

TEST(CountPages, SumsTheRuns) {
  rpc::PageBatch batch;
  AddRun(&batch, 0, 5, rpc::PageRun::DATA);
  AddRun(&batch, 90, 10, rpc::PageRun::ZERO);
  EXPECT_EQ(CountPages(batch.runs(), PageCount(100), PageCount(15))->raw(), 15u);
  EXPECT_EQ(CountPages({}, PageCount(100), PageCount(15))->raw(), 0u);
}

TEST(CountPages, RefusesWhatIsNoRunOfTheVolume) {
  struct Case {
    uint64_t first;
    uint64_t count;
    int kind;
    absl::StatusCode code;
    const char* message;
  };
  const Case cases[] = {
      {5, 0, 0, absl::StatusCode::kInvalidArgument, "a run of pages is empty"},
      {5, 1, 2, absl::StatusCode::kInvalidArgument, "a run of pages has the unknown kind 2"},
      {5, 1, -1, absl::StatusCode::kInvalidArgument, "a run of pages has the unknown kind -1"},
      {95, 6, 0, absl::StatusCode::kOutOfRange, "pages 95 to 100 reach beyond the volume's 100"},
      {kMax, 1, 0, absl::StatusCode::kOutOfRange, "reach beyond the volume's 100"},
      {1, kMax, 1, absl::StatusCode::kOutOfRange, "reach beyond the volume's 100"},
      {kMax, kMax, 1, absl::StatusCode::kOutOfRange, "reach beyond the volume's 100"},
      {0, 21, 0, absl::StatusCode::kInvalidArgument, "more than 20 pages in one message"},
  };
  for (const Case& c : cases) {
    rpc::PageBatch batch;
    AddRun(&batch, c.first, c.count, c.kind);
    const absl::Status status = CountPages(batch.runs(), PageCount(100), PageCount(20)).status();
    EXPECT_EQ(status.code(), c.code) << c.message;
    EXPECT_NE(status.message().find(c.message), absl::string_view::npos) << status;
  }
}

TEST(CountPages, TheLimitIsThatOfAllRunsTogether) {
  rpc::PageBatch batch;
  AddRun(&batch, 0, 20, rpc::PageRun::DATA);
  EXPECT_TRUE(CountPages(batch.runs(), PageCount(100), PageCount(20)).ok());
  AddRun(&batch, 50, 1, rpc::PageRun::ZERO);
  EXPECT_EQ(CountPages(batch.runs(), PageCount(100), PageCount(20)).status().message(),
            "more than 20 pages in one message");
}

TEST(ForEachPage, PayloadThatDoesNotFitTheRunsIsDataLoss) {
  rpc::PageBatch batch;
  PageBatchBuilder builder(&batch);
  builder.Encode(PageIndex(1), Filled(1), Codec::kRaw);
  builder.Encode(PageIndex(2), Filled(2), Codec::kRaw);

  rpc::PageBatch one_page_too_many = batch;
  one_page_too_many.mutable_runs(0)->set_count(1);
  EXPECT_EQ(Read(one_page_too_many).status(),
            absl::DataLossError("4108 bytes follow the last page of the batch"));

  rpc::PageBatch one_page_too_few = batch;
  one_page_too_few.mutable_runs(0)->set_count(3);
  EXPECT_EQ(Read(one_page_too_few).status(),
            absl::DataLossError("page 3: encoded page is cut off: 0 bytes are no header"));

  rpc::PageBatch cut_off = batch;
  cut_off.mutable_pages()->pop_back();
  EXPECT_EQ(Read(cut_off).status(),
            absl::DataLossError("page 2: encoded page is cut off: 4107 of 4108 bytes"));

  rpc::PageBatch payload_of_zeros;
  AddRun(&payload_of_zeros, 1, 1, rpc::PageRun::ZERO);
  payload_of_zeros.set_pages("x");
  EXPECT_EQ(Read(payload_of_zeros).status(),
            absl::DataLossError("1 bytes follow the last page of the batch"));
}

TEST(ForEachPage, StopsAtTheFirstErrorOfItsCallers) {
  rpc::PageBatch batch;
  PageBatchBuilder builder(&batch);
  builder.Encode(PageIndex(1), Filled(1), Codec::kRaw);
  builder.AddZero({PageIndex(2), PageCount(1)});
  builder.Encode(PageIndex(3), Filled(3), Codec::kRaw);
  std::vector<uint64_t> seen;
  const absl::Status status = ForEachPage(
      batch,
      [&seen](PageIndex page, absl::string_view) {
        seen.push_back(page.raw());
        return absl::OkStatus();
      },
      [&seen](PageRange zero) {
        seen.push_back(zero.first.raw());
        return absl::AbortedError("enough");
      });
  EXPECT_EQ(status, absl::AbortedError("enough"));
  EXPECT_EQ(seen, (std::vector<uint64_t>{1, 2}));
}

}  // namespace
}  // namespace faultline
