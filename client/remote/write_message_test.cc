// SPDX-License-Identifier: Apache-2.0
#include "client/remote/write_message.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "proto/page_batch.h"

namespace faultline {
namespace {

rpc::WriteRequest Read(const grpc::ByteBuffer& message) {
  std::vector<grpc::Slice> slices;
  EXPECT_TRUE(message.Dump(&slices).ok());
  std::string bytes;
  for (const grpc::Slice& slice : slices) {
    bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  rpc::WriteRequest request;
  EXPECT_TRUE(request.ParseFromString(bytes));
  EXPECT_EQ(request.ByteSizeLong(), bytes.size());
  return request;
}

TEST(WriteMessage, IsTheOneThatTheGeneratedClassWouldMake) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 200; ++i) {
    const WriteMessage::Writer writer{random() % 3, random() >> random() % 64, random() % 3};
    const Codec codec = random() % 2 == 0 ? Codec::kRaw : Codec::kLz4;
    rpc::WriteRequest expected;
    expected.set_volume_id(writer.volume_id);
    expected.set_epoch(writer.epoch);
    expected.set_generation(writer.generation);
    expected.mutable_batch();
    PageBatchBuilder builder(expected.mutable_batch());
    const size_t count = random() % 12;
    WriteMessage message(writer, count);
    PageIndex page(random() % (kMaxVolumePages / 2));
    for (size_t n = 0; n < count; ++n, ++page) {
      if (random() % 4 == 0) page += PageCount(random() % 1000);
      std::string bytes(kPageSize, static_cast<char>(random() % 2));
      if (random() % 2 == 0) {
        for (char& byte : bytes) byte = static_cast<char>(random());
      }
      const PageBytes data(reinterpret_cast<const std::byte*>(bytes.data()), kPageSize);
      if (IsZeroPage(data) && n % 2 == 0) {
        message.AddZero(page);
      } else {
        message.Add(page, data, codec);
      }
      builder.Encode(page, data, codec);
    }
    for (const uint64_t id : {uint64_t{0}, random()}) {
      expected.set_request_id(id);
      ASSERT_EQ(Read(message.Finish(id)).SerializeAsString(), expected.SerializeAsString())
          << "round " << i;
    }
  }
}

}  // namespace
}  // namespace faultline
