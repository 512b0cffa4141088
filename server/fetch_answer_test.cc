// SPDX-License-Identifier: Apache-2.0
#include "server/fetch_answer.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "proto/page_batch.h"

namespace faultline {
namespace {

std::string BytesOf(const grpc::ByteBuffer& message) {
  std::vector<grpc::Slice> slices;
  EXPECT_TRUE(message.Dump(&slices).ok());
  std::string bytes;
  for (const grpc::Slice& slice : slices) {
    bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return bytes;
}

// The same answer, made by the generated class.
class Reference {
 public:
  void Add(PageIndex page, absl::string_view encoded) { builder_.Add(page, encoded); }
  void AddZero(PageRange range) { builder_.AddZero(range); }
  std::string Finish(uint64_t request_id, uint64_t server_ns, uint64_t store_ns) {
    response_.set_server_ns(server_ns);
    response_.set_store_ns(store_ns);
    response_.set_request_id(request_id);
    return response_.SerializeAsString();
  }

 private:
  rpc::FetchResponse response_;
  PageBatchBuilder builder_{response_.mutable_batch()};
};

std::string EncodedPage(uint64_t seed, PageIndex page) {
  std::mt19937_64 random(seed);
  std::string bytes(kPageSize, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random());
  rpc::PageBatch batch;
  PageBatchBuilder(&batch).Encode(
      page, PageBytes(reinterpret_cast<const std::byte*>(bytes.data()), kPageSize), Codec::kRaw);
  return batch.pages();
}

TEST(FetchAnswer, HasTheBytesThatTheGeneratedClassWouldMake) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 300; ++i) {
    const uint64_t request_id = random() % 3 == 0 ? random() % 2 : random();
    FetchAnswer answer(PageCount(random() % 8));
    Reference reference;
    PageIndex page(random() % 2 == 0 ? 0 : random() % (kMaxVolumePages / 2));
    for (uint64_t parts = random() % 12; parts > 0; --parts) {
      if (random() % 4 == 0) page += PageCount(random() % 1000);
      if (random() % 3 == 0) {
        const PageRange zero{page, PageCount(random() % 300)};
        answer.AddZero(zero);
        reference.AddZero(zero);
        page = zero.end();
      } else {
        const std::string encoded = EncodedPage(random(), page);
        answer.Add(page, encoded);
        reference.Add(page, encoded);
        ++page;
      }
    }
    grpc::ByteBuffer message;
    const uint64_t server_ns = random() >> (2 + random() % 62);
    const uint64_t store_ns = random() >> (2 + random() % 62);
    answer.Finish(request_id, std::chrono::nanoseconds(server_ns),
                  std::chrono::nanoseconds(store_ns), &message);
    ASSERT_EQ(BytesOf(message), reference.Finish(request_id, server_ns, store_ns)) << "round " << i;
  }
}

TEST(FetchAnswer, WithoutPagesItIsAnEmptyBatch) {
  FetchAnswer answer(PageCount(0));
  grpc::ByteBuffer message;
  answer.Finish(7, {}, {}, &message);
  rpc::FetchResponse response;
  ASSERT_TRUE(response.ParseFromString(BytesOf(message)));
  EXPECT_EQ(response.request_id(), 7u);
  EXPECT_TRUE(response.has_batch());
  EXPECT_EQ(response.batch().runs_size(), 0);
}

TEST(FetchAnswer, ThatIsNotFinishedFreesItsPages) {
  FetchAnswer answer(PageCount(1));
  answer.Add(PageIndex(3), EncodedPage(1, PageIndex(3)));
}

}  // namespace
}  // namespace faultline
