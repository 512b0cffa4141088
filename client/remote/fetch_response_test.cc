// SPDX-License-Identifier: Apache-2.0
#include "client/remote/fetch_response.h"

#include <absl/strings/str_cat.h>
#include <google/protobuf/stubs/logging.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <limits>
#include <memory>
#include <random>

#include "client/remote/fetch_rpc.h"
#include "proto/page_batch.h"

namespace faultline {
namespace {

std::mt19937_64 SeededRandom() {
  const unsigned seed = testing::UnitTest::GetInstance()->random_seed();
  std::printf("seed %u (--gtest_random_seed)\n", seed);
  return std::mt19937_64(seed);
}

// Of every length that a varint has.
uint64_t RandomNumber(std::mt19937_64& random) { return random() >> (random() % 64); }

std::string RandomBytes(std::mt19937_64& random, size_t size) {
  std::string bytes(size, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random());
  return bytes;
}

rpc::FetchResponse RandomResponse(std::mt19937_64& random) {
  rpc::FetchResponse response;
  if (random() % 4 != 0) response.set_request_id(RandomNumber(random));
  if (random() % 4 == 0) response.set_code(static_cast<int32_t>(random()));
  if (random() % 4 == 0) response.set_message(std::string(random() % 300, 'm'));
  if (random() % 4 != 0) response.set_server_ns(RandomNumber(random));
  if (random() % 4 != 0) response.set_store_ns(RandomNumber(random));
  if (random() % 8 == 0) return response;
  for (uint64_t runs = random() % 6; runs > 0; --runs) {
    rpc::PageRun* run = response.mutable_batch()->add_runs();
    run->set_first(RandomNumber(random));
    run->set_count(RandomNumber(random));
    run->set_kind(static_cast<rpc::PageRun::Kind>(random() % 3));
  }
  response.mutable_batch()->set_pages(RandomBytes(random, random() % 5000));
  return response;
}

// Something that this version does not know, in front of, among or behind what it does.
std::string WithUnknownFields(std::mt19937_64& random, const rpc::FetchResponse& known) {
  rpc::FetchResponse response = known;
  google::protobuf::UnknownFieldSet* fields =
      response.GetReflection()->MutableUnknownFields(&response);
  fields->AddVarint(100, RandomNumber(random));
  fields->AddFixed32(101, 1);
  fields->AddFixed64(102, 1);
  fields->AddLengthDelimited(103, "unknown");
  fields->AddGroup(104)->AddGroup(105)->AddVarint(1, 7);
  fields->AddLengthDelimited(1, "request_id is no string");
  fields->AddVarint(15, 5);
  if (response.has_batch()) {
    rpc::PageBatch* batch = response.mutable_batch();
    batch->GetReflection()->MutableUnknownFields(batch)->AddLengthDelimited(9, "unknown");
  }
  std::string unknown;
  fields->SerializeToString(&unknown);
  return random() % 2 == 0 ? response.SerializeAsString() : unknown + known.SerializeAsString();
}

void ExpectSame(const FetchResponseView& view, const rpc::FetchResponse& response) {
  EXPECT_EQ(view.request_id, response.request_id());
  EXPECT_EQ(view.code, response.code());
  EXPECT_EQ(view.message, response.message());
  EXPECT_EQ(view.server_ns, response.server_ns());
  EXPECT_EQ(view.store_ns, response.store_ns());
  EXPECT_TRUE(view.pages == response.batch().pages());
  ASSERT_EQ(view.runs.size(), static_cast<size_t>(response.batch().runs_size()));
  for (size_t i = 0; i < view.runs.size(); ++i) {
    const rpc::PageRun& run = response.batch().runs(static_cast<int>(i));
    EXPECT_EQ(view.runs[i].first, run.first());
    EXPECT_EQ(view.runs[i].count, run.count());
    EXPECT_EQ(view.runs[i].kind, run.kind());
  }
}

// A copy of its own, so that a sanitizer sees what is read beyond its end.
absl::Status Parse(absl::string_view bytes, FetchResponseView* view,
                   std::unique_ptr<char[]>* copy) {
  *copy = std::make_unique<char[]>(bytes.size());
  memcpy(copy->get(), bytes.data(), bytes.size());
  return ParseFetchResponse(absl::string_view(copy->get(), bytes.size()), view);
}

// Whether `bytes` are a message to the generated parser: then they have to be the same message to
// ours. What the other refuses, ours may take: texts that are not UTF-8, for one.
bool ExpectAgrees(absl::string_view bytes) {
  const google::protobuf::LogSilencer silence;
  FetchResponseView view;
  std::unique_ptr<char[]> copy;
  const absl::Status status = Parse(bytes, &view, &copy);
  rpc::FetchResponse response;
  const bool parsed = response.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
  if (parsed) {
    EXPECT_TRUE(status.ok()) << status;
    ExpectSame(view, response);
  } else if (!status.ok()) {
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    ExpectSame(view, rpc::FetchResponse());
  }
  return parsed;
}

TEST(ParseFetchResponse, MakesOfEveryMessageWhatTheGeneratedParserMakes) {
  std::mt19937_64 random = SeededRandom();
  FetchResponseView view;  // used again: nothing of the last message may be left
  for (int i = 0; i < 2'000; ++i) {
    const rpc::FetchResponse response = RandomResponse(random);
    const std::string bytes = response.SerializeAsString();
    ASSERT_TRUE(ParseFetchResponse(bytes, &view).ok());
    ExpectSame(view, response);
  }
}

TEST(ParseFetchResponse, PagesAreThoseInTheMessageItself) {
  rpc::FetchResponse response;
  response.mutable_batch()->set_pages(std::string(4108, 'p'));
  response.mutable_batch()->add_runs()->set_count(1);
  const std::string bytes = response.SerializeAsString();
  FetchResponseView view;
  ASSERT_TRUE(ParseFetchResponse(bytes, &view).ok());
  EXPECT_EQ(view.pages.size(), 4108u);
  EXPECT_GE(view.pages.data(), bytes.data());
  EXPECT_LE(view.pages.data() + view.pages.size(), bytes.data() + bytes.size());
  // And the second time the runs are where the first were.
  const auto* runs = view.runs.data();
  ASSERT_TRUE(ParseFetchResponse(bytes, &view).ok());
  EXPECT_EQ(view.runs.data(), runs);
}

TEST(ParseFetchResponse, FieldsThatAreNotKnownAreSkipped) {
  std::mt19937_64 random = SeededRandom();
  for (int i = 0; i < 200; ++i) {
    const rpc::FetchResponse response = RandomResponse(random);
    const std::string bytes = WithUnknownFields(random, response);
    FetchResponseView view;
    ASSERT_TRUE(ParseFetchResponse(bytes, &view).ok());
    ExpectSame(view, response);
  }
}

// One message after the other is the two merged: the fields come twice, and in any order.
TEST(ParseFetchResponse, FieldsThatComeAgainAreMerged) {
  std::mt19937_64 random = SeededRandom();
  for (int i = 0; i < 500; ++i) {
    const rpc::FetchResponse first = RandomResponse(random);
    const rpc::FetchResponse second = RandomResponse(random);
    EXPECT_TRUE(ExpectAgrees(first.SerializeAsString() + second.SerializeAsString()));
  }
}

TEST(ParseFetchResponse, TruncatedMessageIsRefusedOrWhatIsLeftOfIt) {
  std::mt19937_64 random = SeededRandom();
  for (int i = 0; i < 20; ++i) {
    const std::string bytes = WithUnknownFields(random, RandomResponse(random));
    for (size_t size = 0; size < bytes.size(); ++size) {
      const absl::string_view left = absl::string_view(bytes).substr(0, size);
      FetchResponseView view;
      EXPECT_EQ(ExpectAgrees(left), ParseFetchResponse(left, &view).ok());
    }
  }
}

TEST(ParseFetchResponse, DamagedMessageThatIsStillOneIsWhatTheGeneratedParserMakesOfIt) {
  std::mt19937_64 random = SeededRandom();
  int parsed = 0;
  for (int i = 0; i < 20'000; ++i) {
    std::string bytes = RandomResponse(random).SerializeAsString();
    if (bytes.empty()) continue;
    // Mostly in what is not payload.
    const size_t reach = random() % 4 == 0 ? bytes.size() : std::min<size_t>(bytes.size(), 40);
    for (uint64_t flips = 1 + random() % 3; flips > 0; --flips) {
      bytes[random() % reach] = static_cast<char>(random());
    }
    parsed += ExpectAgrees(bytes);
  }
  EXPECT_GT(parsed, 0);
}

TEST(ParseFetchResponse, RandomBytesAreNeverReadBeyondTheirEnd) {
  std::mt19937_64 random = SeededRandom();
  // Bytes that make fields of this message likely.
  constexpr unsigned char kLikely[] = {0x08, 0x10, 0x18, 0x1a, 0x22, 0x0a, 0x7a, 0x80,
                                       0xff, 0x00, 0x01, 0x02, 0x03, 0x0b, 0x0c, 0x7f};
  for (int i = 0; i < 100'000; ++i) {
    std::string bytes = RandomBytes(random, random() % 48);
    for (char& byte : bytes) {
      if (random() % 2 == 0) byte = static_cast<char>(kLikely[random() % sizeof kLikely]);
    }
    ExpectAgrees(bytes);
  }
}

TEST(ParseFetchResponse, RefusesWhatOnlyLooksLikeAMessage) {
  const std::vector<std::pair<const char*, std::string>> cases = {
      {"a field of number 0", std::string("\0\1", 2)},
      {"a field of number 0 with bytes", std::string("\2\0", 2)},
      {"a tag of more than five bytes", std::string("\x88\x80\x80\x80\x80\x00\x01", 7)},
      {"a length beyond the end", "\x7a\x05\x7a\x01"},
      {"a length of 4 GiB", "\x7a\xff\xff\xff\xff\x0f"},
      {"pages that reach out of their batch", "\x7a\x02\x7a\x04pppp"},
      {"a number without an end", "\x08\xff\xff"},
      {"a number of more than ten bytes", "\x08" + std::string(11, '\xff') + "\x01"},
      {"the end of a group that never began", "\x0c"},
      {"a group without an end", "\x0b"},
      {"groups a thousand deep", std::string(1000, '\x0b') + std::string(1000, '\x0c')},
  };
  for (const auto& [what, bytes] : cases) {
    FetchResponseView view;
    const absl::Status status = ParseFetchResponse(bytes, &view);
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << what;
    EXPECT_EQ(status.message(),
              absl::StrCat("a message of ", bytes.size(), " bytes is no answer to a fetch"));
    EXPECT_FALSE(ExpectAgrees(bytes)) << what;
  }
}

grpc::ByteBuffer Slices(absl::string_view bytes, size_t size) {
  std::vector<grpc::Slice> slices;
  for (; bytes.size() > size; bytes.remove_prefix(size)) slices.emplace_back(bytes.data(), size);
  slices.emplace_back(bytes.data(), bytes.size());
  return grpc::ByteBuffer(slices.data(), slices.size());
}

class FetchRpcTest : public testing::Test {
 protected:
  static constexpr uint64_t kPages = 5;

  FetchRpcTest() {
    rpc::FetchResponse response;
    response.set_request_id(77);
    PageBatchBuilder builder(response.mutable_batch());
    std::mt19937_64 random(1);
    for (uint64_t page = 0; page < kPages; ++page) {
      content_.push_back(RandomBytes(random, kPageSize));
      builder.Encode(
          PageIndex(page),
          PageBytes(reinterpret_cast<const std::byte*>(content_.back().data()), kPageSize),
          Codec::kRaw);
    }
    encoded_ = response.SerializeAsString();
  }

  // What calls that share the request get of it: one for page 0, one for all that follow.
  void ExpectDelivers() {
    std::vector<std::string> got;
    std::vector<FetchRpc::Call> calls;
    for (const PageRange range :
         {PageRange{PageIndex(0), PageCount(1)}, PageRange{PageIndex(1), PageCount(kPages - 1)}}) {
      calls.push_back({7, range, absl::InfiniteFuture(), [&got](auto runs) {
                         ASSERT_TRUE(runs.ok()) << runs.status();
                         for (const FetchedRun& run : *runs) {
                           got.emplace_back(reinterpret_cast<const char*>(run.bytes),
                                            run.range.size_bytes());
                         }
                       }});
    }
    std::vector<FetchRpc::Call> again;
    FetchRpc::Deliver(&received_, absl::MakeSpan(calls), &again);
    EXPECT_TRUE(again.empty());
    ASSERT_EQ(got.size(), 2u);
    EXPECT_TRUE(got[0] == content_[0]);
    EXPECT_TRUE(got[1] == content_[1] + content_[2] + content_[3] + content_[4]);
  }

  std::vector<std::string> content_;
  std::string encoded_;
  FetchRpc::Received received_;
};

TEST_F(FetchRpcTest, MessageIsReadFromHoweverManySlices) {
  for (const size_t size : {encoded_.size(), size_t{8192}, size_t{1000}, size_t{24}, size_t{1}}) {
    received_.message = Slices(encoded_, size);
    const absl::StatusOr<uint64_t> id = FetchRpc::Parse(&received_);
    ASSERT_TRUE(id.ok()) << id.status();
    EXPECT_EQ(*id, 77u);
    ExpectDelivers();
    FetchRpc::Release(&received_);
    EXPECT_FALSE(received_.message.Valid());
    EXPECT_TRUE(received_.parts.empty());
    EXPECT_TRUE(received_.view.pages.empty());
  }
}

TEST_F(FetchRpcTest, MessageMayBeSplitAnywhere) {
  for (size_t at = 1; at < encoded_.size(); ++at) {
    const grpc::Slice slices[] = {grpc::Slice(encoded_.data(), at),
                                  grpc::Slice(encoded_.data() + at, encoded_.size() - at)};
    received_.message = grpc::ByteBuffer(slices, 2);
    const absl::StatusOr<uint64_t> id = FetchRpc::Parse(&received_);
    ASSERT_TRUE(id.ok()) << id.status();
    EXPECT_EQ(*id, 77u);
    ExpectDelivers();
    ASSERT_FALSE(HasFailure()) << "split at byte " << at;
    FetchRpc::Release(&received_);
  }
}

TEST_F(FetchRpcTest, EmptySlicesAreNothing) {
  for (const size_t at : {size_t{0}, size_t{10}, size_t{6000}, encoded_.size()}) {
    const grpc::Slice slices[] = {grpc::Slice(), grpc::Slice(encoded_.data(), at), grpc::Slice(),
                                  grpc::Slice(encoded_.data() + at, encoded_.size() - at),
                                  grpc::Slice()};
    received_.message = grpc::ByteBuffer(slices, std::size(slices));
    const absl::StatusOr<uint64_t> id = FetchRpc::Parse(&received_);
    ASSERT_TRUE(id.ok()) << id.status();
    ExpectDelivers();
    ASSERT_FALSE(HasFailure()) << "split at byte " << at;
    FetchRpc::Release(&received_);
  }
}

TEST_F(FetchRpcTest, PagesInSeveralSlicesAreNotPutTogether) {
  received_.message = Slices(encoded_, 9000);
  ASSERT_TRUE(FetchRpc::Parse(&received_).ok());
  EXPECT_TRUE(received_.joined.empty());
  EXPECT_GT(received_.view.pages_beyond, 0u);
  ExpectDelivers();
}

TEST_F(FetchRpcTest, DamageIsFoundWhereverThePageIsSplit) {
  std::string damaged = encoded_;
  damaged[damaged.size() - 2] ^= 1;  // of the last page
  for (const size_t size : {damaged.size(), size_t{9000}, size_t{4096}, size_t{1}}) {
    received_.message = Slices(damaged, size);
    ASSERT_TRUE(FetchRpc::Parse(&received_).ok());
    absl::Status status;
    std::vector<FetchRpc::Call> calls;
    calls.push_back({7, PageRange{PageIndex(0), PageCount(kPages)}, absl::InfiniteFuture(),
                     [&status](auto runs) { status = runs.status(); }});
    std::vector<FetchRpc::Call> again;
    FetchRpc::Deliver(&received_, absl::MakeSpan(calls), &again);
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
    FetchRpc::Release(&received_);
  }
}

TEST_F(FetchRpcTest, MessageThatEndsTooEarlyOrTooLateIsNoAnswer) {
  const auto deliver = [this](const std::string& bytes, size_t slice) {
    received_.message = Slices(bytes, slice);
    absl::Status status = FetchRpc::Parse(&received_).status();
    if (status.ok()) {
      std::vector<FetchRpc::Call> calls;
      calls.push_back({7, PageRange{PageIndex(0), PageCount(kPages)}, absl::InfiniteFuture(),
                       [&status](auto runs) { status = runs.status(); }});
      std::vector<FetchRpc::Call> again;
      FetchRpc::Deliver(&received_, absl::MakeSpan(calls), &again);
    }
    FetchRpc::Release(&received_);
    return status;
  };
  for (const size_t slice : {size_t{100}, size_t{9000}, encoded_.size() + 10}) {
    ASSERT_TRUE(deliver(encoded_, slice).ok());
    EXPECT_FALSE(deliver(encoded_.substr(0, encoded_.size() - 1), slice).ok());
    EXPECT_FALSE(deliver(encoded_.substr(0, 9000), slice).ok());
    EXPECT_FALSE(deliver(encoded_ + "rubbish", slice).ok());
  }
}

TEST_F(FetchRpcTest, WholeSliceIsReadWhereItIsAndGivenBack) {
  bool given_back = false;
  {
    const grpc::Slice slice(
        encoded_.data(), encoded_.size(), [](void* flag) { *static_cast<bool*>(flag) = true; },
        &given_back);
    received_.message = grpc::ByteBuffer(&slice, 1);
  }
  ASSERT_TRUE(FetchRpc::Parse(&received_).ok());
  EXPECT_GE(received_.view.pages.data(), encoded_.data());
  EXPECT_LT(received_.view.pages.data(), encoded_.data() + encoded_.size());
  ExpectDelivers();
  EXPECT_FALSE(given_back);
  FetchRpc::Release(&received_);
  EXPECT_TRUE(given_back);
}

TEST_F(FetchRpcTest, EmptyMessageAnswersNobody) {
  received_.message = grpc::ByteBuffer(nullptr, 0);
  const absl::StatusOr<uint64_t> id = FetchRpc::Parse(&received_);
  ASSERT_TRUE(id.ok()) << id.status();
  EXPECT_EQ(*id, 0u);
}

TEST_F(FetchRpcTest, MessageThatIsNoneIsDataLoss) {
  received_.message = Slices("\x7a\x7f rubbish", 3);
  EXPECT_EQ(FetchRpc::Parse(&received_).status().code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace faultline
