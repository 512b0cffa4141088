// SPDX-License-Identifier: Apache-2.0
#include "proto/page_codec.h"

#include <gtest/gtest.h>
#include <string.h>

#include <array>
#include <random>
#include <string>

namespace faultline {
namespace {

using Page = std::array<std::byte, kPageSize>;

constexpr uint32_t kSeed = 20240611;

Page ZeroPage() { return Page{}; }

// What no codec can make smaller.
Page RandomPage(uint32_t seed) {
  std::mt19937 random(seed);
  Page page;
  for (std::byte& byte : page) byte = static_cast<std::byte>(random());
  return page;
}

// What every codec makes much smaller.
Page TextPage() {
  Page page;
  constexpr absl::string_view kWords = "all work and no play makes jack a dull boy. ";
  for (size_t i = 0; i < page.size(); ++i) {
    page[i] = static_cast<std::byte>(kWords[i % kWords.size()]);
  }
  return page;
}

std::string Encode(PageIndex index, const Page& page, Codec codec) {
  std::string encoded;
  EncodePage(index, page, codec, &encoded);
  return encoded;
}

Codec CodecOf(absl::string_view encoded) { return static_cast<Codec>(encoded[0]); }

void ExpectDecodes(PageIndex index, absl::string_view encoded, const Page& expected) {
  Page scratch;
  const absl::StatusOr<PageBytes> page = DecodePage(index, encoded, scratch);
  ASSERT_TRUE(page.ok()) << page.status();
  EXPECT_EQ(memcmp(page->data(), expected.data(), kPageSize), 0);
}

void ExpectDataLoss(PageIndex index, absl::string_view encoded, absl::string_view what) {
  const absl::Status verified = VerifyPage(index, encoded);
  EXPECT_EQ(verified.code(), absl::StatusCode::kDataLoss) << what;
  EXPECT_EQ(verified.message().find("page " + std::to_string(index.raw()) + ": "), 0u) << verified;
  Page scratch;
  EXPECT_EQ(DecodePage(index, encoded, scratch).status(), verified) << what;
}

class EveryCodec : public testing::TestWithParam<Codec> {};

INSTANTIATE_TEST_SUITE_P(PageCodec, EveryCodec,
                         testing::Values(Codec::kZero, Codec::kRaw, Codec::kLz4, Codec::kZstd));

TEST_P(EveryCodec, WhatWasEncodedIsDecodedByteForByte) {
  for (const uint64_t index : {uint64_t{0}, uint64_t{1}, kMaxVolumePages - 1}) {
    for (const Page& page : {ZeroPage(), TextPage(), RandomPage(kSeed)}) {
      const std::string encoded = Encode(PageIndex(index), page, GetParam());
      EXPECT_LE(encoded.size(), kMaxEncodedPageBytes);
      EXPECT_TRUE(VerifyPage(PageIndex(index), encoded).ok());
      ExpectDecodes(PageIndex(index), encoded, page);
    }
  }
}

TEST_P(EveryCodec, APageOfZerosIsAHeaderAlone) {
  const std::string encoded = Encode(PageIndex(7), ZeroPage(), GetParam());
  EXPECT_EQ(encoded.size(), kEncodedHeaderBytes);
  EXPECT_TRUE(IsEncodedZeroPage(encoded));
  std::string zero;
  EncodeZeroPage(PageIndex(7), &zero);
  EXPECT_EQ(encoded, zero);
}

TEST_P(EveryCodec, APageThatDoesNotGetSmallerIsStoredRaw) {
  const std::string encoded = Encode(PageIndex(7), RandomPage(kSeed), GetParam());
  EXPECT_EQ(CodecOf(encoded), Codec::kRaw);
  EXPECT_EQ(encoded.size(), kMaxEncodedPageBytes);
  EXPECT_FALSE(IsEncodedZeroPage(encoded));
}

// The promise of the format: no single bit, of header, checksum or payload, goes unnoticed.
TEST_P(EveryCodec, EverySingleFlippedBitIsDetected) {
  for (const Page& page : {ZeroPage(), TextPage(), RandomPage(kSeed)}) {
    std::string encoded = Encode(PageIndex(42), page, GetParam());
    for (size_t bit = 0; bit < encoded.size() * 8; ++bit) {
      const char mask = static_cast<char>(1 << (bit % 8));
      encoded[bit / 8] = static_cast<char>(encoded[bit / 8] ^ mask);
      ASSERT_EQ(VerifyPage(PageIndex(42), encoded).code(), absl::StatusCode::kDataLoss)
          << "bit " << bit;
      encoded[bit / 8] = static_cast<char>(encoded[bit / 8] ^ mask);
    }
    ExpectDecodes(PageIndex(42), encoded, page);
  }
}

TEST_P(EveryCodec, APageUnderAnotherIndexIsDetected) {
  for (const Page& page : {ZeroPage(), TextPage(), RandomPage(kSeed)}) {
    const std::string encoded = Encode(PageIndex(42), page, GetParam());
    for (uint64_t bit = 1; bit < kMaxVolumePages; bit <<= 1) {
      ExpectDataLoss(PageIndex(42 ^ bit), encoded, "another index");
    }
    ExpectDataLoss(PageIndex(41), encoded, "a neighbour");
    ExpectDataLoss(PageIndex(43), encoded, "a neighbour");
  }
}

TEST_P(EveryCodec, ACutOffPageIsDetectedAtEveryLength) {
  for (const Page& page : {ZeroPage(), TextPage(), RandomPage(kSeed)}) {
    const std::string encoded = Encode(PageIndex(42), page, GetParam());
    for (size_t size = 0; size < encoded.size(); ++size) {
      const absl::string_view cut = absl::string_view(encoded).substr(0, size);
      ExpectDataLoss(PageIndex(42), cut, "cut off");
      absl::string_view input = cut;
      const absl::Status taken = TakeEncodedPage(&input).status();
      EXPECT_EQ(taken.code(), absl::StatusCode::kDataLoss);
      EXPECT_NE(taken.message().find("cut off: " + std::to_string(size)), absl::string_view::npos);
      EXPECT_EQ(input.data(), cut.data());
      EXPECT_EQ(input.size(), cut.size());
    }
    ExpectDataLoss(PageIndex(42), encoded + '\0', "a byte too many");
  }
}

TEST(PageCodec, CompressedPagesAreSmallerAndNameTheirCodec) {
  const std::string lz4 = Encode(PageIndex(1), TextPage(), Codec::kLz4);
  EXPECT_EQ(CodecOf(lz4), Codec::kLz4);
  EXPECT_LT(lz4.size(), kPageSize / 4);
  const std::string zstd = Encode(PageIndex(1), TextPage(), Codec::kZstd);
  EXPECT_EQ(CodecOf(zstd), Codec::kZstd);
  EXPECT_LT(zstd.size(), kPageSize / 4);
}

TEST(PageCodec, PagesAreTakenOneByOneOffTheFront) {
  std::string stream;
  EncodePage(PageIndex(1), TextPage(), Codec::kLz4, &stream);
  EncodeZeroPage(PageIndex(2), &stream);
  EncodePage(PageIndex(3), RandomPage(kSeed), Codec::kRaw, &stream);
  absl::string_view rest = stream;
  for (const uint64_t index : {1, 2, 3}) {
    const absl::StatusOr<absl::string_view> encoded = TakeEncodedPage(&rest);
    ASSERT_TRUE(encoded.ok()) << encoded.status();
    EXPECT_TRUE(VerifyPage(PageIndex(index), *encoded).ok()) << index;
  }
  EXPECT_TRUE(rest.empty());
}

TEST(PageCodec, RawPagesAreReadInPlace) {
  const std::string encoded = Encode(PageIndex(1), RandomPage(kSeed), Codec::kRaw);
  Page scratch;
  const absl::StatusOr<PageBytes> page = DecodePage(PageIndex(1), encoded, scratch);
  ASSERT_TRUE(page.ok());
  EXPECT_EQ(reinterpret_cast<const char*>(page->data()), encoded.data() + kEncodedHeaderBytes);
}

TEST(PageCodec, OneByteThatIsNotZeroMakesAPageOfData) {
  EXPECT_TRUE(IsZeroPage(ZeroPage()));
  for (size_t i = 0; i < kPageSize; ++i) {
    Page page = ZeroPage();
    page[i] = std::byte{1};
    EXPECT_FALSE(IsZeroPage(page)) << "byte " << i;
  }
  Page ones;
  ones.fill(std::byte{0x11});
  EXPECT_FALSE(IsZeroPage(ones));
}

TEST(PageCodec, CodecsAreKnownByName) {
  EXPECT_EQ(ParseCodec("raw").value_or(Codec::kZero), Codec::kRaw);
  EXPECT_EQ(ParseCodec("lz4").value_or(Codec::kZero), Codec::kLz4);
  EXPECT_EQ(ParseCodec("zstd").value_or(Codec::kZero), Codec::kZstd);
  const absl::Status unknown = ParseCodec("gzip").status();
  EXPECT_EQ(unknown.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(unknown.message(), "unknown codec \"gzip\"; known are raw, lz4 and zstd");
}

TEST(PageCodec, AFormatOfTheFutureIsNamed) {
  std::string encoded = Encode(PageIndex(1), TextPage(), Codec::kRaw);
  encoded[1] = 2;
  const absl::Status status = VerifyPage(PageIndex(1), encoded);
  EXPECT_EQ(status.message(), "page 1: encoded page has format 2, this program knows 1");
}

}  // namespace
}  // namespace faultline
