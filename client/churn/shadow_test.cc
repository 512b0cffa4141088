// SPDX-License-Identifier: Apache-2.0
#include "client/churn/shadow.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "client/churn/operation.h"
#include "client/churn/pattern.h"
#include "client/churn/random.h"

namespace faultline::churn {
namespace {

using Page = std::vector<std::byte>;

const Pattern kPattern(7);

Page PageOf(Stamp stamp) {
  Page page(kPageSize);
  kPattern.Fill(stamp, page.data());
  return page;
}
Page Zeros() { return Page(kPageSize); }
Stamp Volume(uint64_t number) { return {.kind = Stamp::kVolume, .number = number}; }
Stamp Written(uint64_t number) { return {.kind = Stamp::kWritten, .number = number}; }

PageView View(const Page& page) { return PageView(page.data(), kPageSize); }

// `page` with bytes [first, first + length) of `other`.
Page With(Page page, size_t first, size_t length, const Page& other) {
  for (size_t i = first; i < first + length; ++i) page[i] = other[i];
  return page;
}

std::string Described(const Page& page) {
  char text[512];
  kPattern.Describe(View(page), text, sizeof text);
  return text;
}

TEST(RandomTest, UnmixIsTheInverseOfMix) {
  Random random{3};
  for (int i = 0; i < 1000; ++i) {
    const uint64_t x = random.Next();
    EXPECT_EQ(Unmix(Mix(x)), x);
  }
}

TEST(RandomTest, StreamsOfDifferentSeedsDiffer) {
  EXPECT_EQ(Random({1, 2}).Next(), Random({1, 2}).Next());
  EXPECT_NE(Random({1, 2}).Next(), Random({2, 1}).Next());
  EXPECT_NE(Random({1, 2}).Next(), Random({1, 2, 0}).Next());
}

TEST(PatternTest, NoByteOfAPageIsThatOfAllOtherPages) {
  const Page one = PageOf(Volume(1));
  std::vector<bool> differs(kPageSize, false);
  for (uint64_t number = 2; number < 12; ++number) {
    const Page other = PageOf(Volume(number));
    for (size_t i = 0; i < kPageSize; ++i) {
      if (one[i] != other[i]) differs[i] = true;
    }
  }
  for (size_t i = 0; i < kPageSize; ++i) EXPECT_TRUE(differs[i]) << "byte " << i;
}

TEST(PatternTest, DependsOnTheSeed) {
  EXPECT_NE(Pattern(1).Word(Volume(5), 9), Pattern(2).Word(Volume(5), 9));
}

TEST(PatternTest, RecognisesEveryWord) {
  for (const Stamp stamp : {Volume(0), Volume(4'000'000), Written(uint64_t{63} << 34 | 12345),
                            Stamp{.kind = Stamp::kFile, .number = 77}}) {
    for (size_t i = 0; i < kWordsPerPage; ++i) {
      const Pattern::Recognised found = kPattern.Recognise(kPattern.Word(stamp, i));
      EXPECT_TRUE(found.known);
      EXPECT_EQ(found.stamp, stamp);
      EXPECT_EQ(found.index, i);
    }
  }
}

TEST(PatternTest, DescribesAWholePageATornOneAndWhatIsOfNoPage) {
  EXPECT_EQ(Described(PageOf(Volume(5))), "page 5 of the volume (bytes 0 to 4095)");
  EXPECT_EQ(Described(Zeros()), "zeros (bytes 0 to 4095)");
  EXPECT_EQ(Described(With(PageOf(Volume(5)), 1024, 3072, PageOf(Written(9)))),
            "page 5 of the volume (bytes 0 to 1023), then write 9 (bytes 1024 to 4095)");
  EXPECT_EQ(Described(Page(kPageSize, std::byte{0xff})), "bytes of no page (bytes 0 to 4095)");
}

TEST(PatternTest, DescribesBytesAtAWrongPlace) {
  const Page page = PageOf(Volume(5));
  Page moved = Zeros();
  memcpy(moved.data(), page.data() + 2048, 2048);
  EXPECT_EQ(Described(moved),
            "page 5 of the volume, its byte 2048 on (bytes 0 to 2047), then zeros (bytes 2048 to "
            "4095)");
}

TEST(PageShadowTest, FreshMemoryIsZeros) {
  PageShadow shadow;
  EXPECT_EQ(shadow.Check(kPattern, View(Zeros())).wrong_bytes, 0u);
  EXPECT_GT(shadow.Check(kPattern, View(PageOf(Volume(0)))).wrong_bytes, 4000u);
}

TEST(PageShadowTest, EverySingleByteCounts) {
  PageShadow shadow(Volume(3));
  Page page = PageOf(Volume(3));
  EXPECT_EQ(shadow.Check(kPattern, View(page)).wrong_bytes, 0u);
  for (size_t i = 0; i < kPageSize; ++i) {
    page[i] ^= std::byte{0x10};
    const PageShadow::Verdict verdict = shadow.Check(kPattern, View(page));
    ASSERT_EQ(verdict.wrong_bytes, 1u);
    ASSERT_EQ(verdict.first_wrong, i);
    page[i] ^= std::byte{0x10};
  }
}

TEST(PageShadowTest, AnotherPageOfTheVolumeIsWrong) {
  PageShadow shadow(Volume(3));
  EXPECT_GT(shadow.Check(kPattern, View(PageOf(Volume(4)))).wrong_bytes, 4000u);
}

TEST(PageShadowTest, LaterWritesLieOverEarlierOnes) {
  PageShadow shadow(Volume(3));
  shadow.Write(100, 200, 1);
  shadow.Write(250, 100, 2);
  Page page = With(PageOf(Volume(3)), 100, 200, PageOf(Written(1)));
  EXPECT_GT(shadow.Check(kPattern, View(page)).wrong_bytes, 0u) << "the second write is lost";
  page = With(page, 250, 100, PageOf(Written(2)));
  EXPECT_EQ(shadow.Check(kPattern, View(page)).wrong_bytes, 0u);
}

TEST(PageShadowTest, AWholeWriteForgetsWhatWasThere) {
  PageShadow shadow(Volume(3));
  while (shadow.CanWritePart()) shadow.Write(8, 8, 1);
  shadow.Write(0, kPageSize, 2);
  EXPECT_TRUE(shadow.CanWritePart());
  EXPECT_EQ(shadow.Check(kPattern, View(PageOf(Written(2)))).wrong_bytes, 0u);
}

TEST(PageShadowTest, ADiscardedPageIsZerosAndNothingElse) {
  PageShadow shadow(Volume(3));
  shadow.Write(0, 8, 1);
  shadow.Discard();
  EXPECT_EQ(shadow.Check(kPattern, View(Zeros())).wrong_bytes, 0u);
  EXPECT_GT(shadow.Check(kPattern, View(PageOf(Volume(3)))).wrong_bytes, 0u);
}

TEST(PageShadowTest, AFreedPageMayBeThereUntilItIsGone) {
  PageShadow shadow(Volume(3));
  shadow.DiscardLazily();
  EXPECT_EQ(shadow.Check(kPattern, View(PageOf(Volume(3)))).wrong_bytes, 0u);
  EXPECT_EQ(shadow.Check(kPattern, View(Zeros())).wrong_bytes, 0u);
  EXPECT_GT(shadow.Check(kPattern, View(PageOf(Volume(3)))).wrong_bytes, 0u)
      << "it must not come back";
}

TEST(PageShadowTest, AFreedPageIsNeverHalfThere) {
  PageShadow shadow(Volume(3));
  shadow.DiscardLazily();
  EXPECT_GT(shadow.Check(kPattern, View(With(Zeros(), 0, 2048, PageOf(Volume(3))))).wrong_bytes,
            0u);
}

TEST(PageShadowTest, AWriteToAFreedPageStaysWhateverBecameOfTheRest) {
  const Page kept = With(PageOf(Volume(3)), 64, 100, PageOf(Written(4)));
  const Page gone = With(Zeros(), 64, 100, PageOf(Written(4)));
  for (const bool is_kept : {true, false}) {
    const Page& found = is_kept ? kept : gone;
    const Page& other = is_kept ? gone : kept;
    PageShadow shadow(Volume(3));
    shadow.DiscardLazily();
    shadow.Write(64, 100, 4);
    EXPECT_EQ(shadow.Check(kPattern, View(found)).wrong_bytes, 0u);
    EXPECT_FALSE(shadow.may_be_zero()) << "the kernel has decided";
    EXPECT_EQ(shadow.Check(kPattern, View(found)).wrong_bytes, 0u);
    EXPECT_GT(shadow.Check(kPattern, View(other)).wrong_bytes, 0u);
    EXPECT_GT(shadow.Check(kPattern, View(Zeros())).wrong_bytes, 0u);
  }
}

TEST(PageShadowTest, SaysWhatItExpects) {
  PageShadow shadow(Volume(3));
  shadow.Write(64, 100, 4);
  char text[256];
  shadow.Describe(text, sizeof text);
  EXPECT_STREQ(text, "page 3 of the volume, then bytes 64 to 163 by write 4");
}

TEST(OperationMixTest, SameSeedSameOperations) {
  const OperationMix mix(MemoryKind::kAnon);
  Random a{5}, b{5};
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(mix.Choose(&a), mix.Choose(&b));
}

TEST(OperationMixTest, OnlyWhatTheListNames) {
  OperationMix mix(MemoryKind::kShmem);
  std::string error;
  ASSERT_TRUE(mix.Restrict("read,remove", &error)) << error;
  Random random{5};
  bool read = false, removed = false;
  for (int i = 0; i < 1000; ++i) {
    const Operation operation = mix.Choose(&random);
    (operation == Operation::kRead ? read : removed) = true;
    EXPECT_TRUE(operation == Operation::kRead || operation == Operation::kRemove);
  }
  EXPECT_TRUE(read && removed);
}

TEST(OperationMixTest, SaysWhichNameIsWrong) {
  OperationMix mix(MemoryKind::kAnon);
  std::string error;
  EXPECT_FALSE(mix.Restrict("read,raed", &error));
  EXPECT_NE(error.find("there is no operation \"raed\"; there are read,write,dontneed"),
            std::string::npos)
      << error;
  EXPECT_FALSE(mix.Restrict("remove", &error));
  EXPECT_EQ(error, "this kind of memory has none of the operations remove");
}

}  // namespace
}  // namespace faultline::churn
