// SPDX-License-Identifier: Apache-2.0
#include "client/churn/pattern.h"

#include <cinttypes>
#include <cstdio>
#include <cstring>

namespace faultline::churn {
namespace {

// Numbers beyond it are taken for what only looks like a stamp. 2^-14 of all words pass: a word
// that is of no page is hardly ever recognised as one.
constexpr uint64_t kNumberBits = 40;
// Parts that a description names; the rest is summed up.
constexpr int kDescribedParts = 4;

}  // namespace

void Pattern::Fill(Stamp stamp, std::byte* page) const {
  for (size_t i = 0; i < kWordsPerPage; ++i) {
    const uint64_t word = Word(stamp, i);
    memcpy(page + i * sizeof word, &word, sizeof word);
  }
}

Pattern::Recognised Pattern::Recognise(uint64_t word) const {
  if (word == 0) return {.known = true, .stamp = {}, .index = 0};
  const uint64_t raw = Unmix(word) ^ key_;
  const uint64_t kind = raw >> 59;
  const uint64_t number = raw << 5 >> 14;
  if (kind < Stamp::kVolume || kind > Stamp::kFile || number >> kNumberBits != 0) return {};
  return {.known = true,
          .stamp = {.kind = static_cast<Stamp::Kind>(kind), .number = number},
          .index = static_cast<size_t>(raw & (kWordsPerPage - 1))};
}

void DescribeStamp(Stamp stamp, char* text, size_t size) {
  switch (stamp.kind) {
    case Stamp::kZero:
      snprintf(text, size, "zeros");
      return;
    case Stamp::kVolume:
      snprintf(text, size, "page %" PRIu64 " of the volume", stamp.number);
      return;
    case Stamp::kWritten:
      snprintf(text, size, "write %" PRIu64, stamp.number);
      return;
    case Stamp::kFile:
      snprintf(text, size, "page %" PRIu64 " of the memfd", stamp.number);
      return;
  }
}

void Pattern::Describe(PageView page, char* text, size_t size) const {
  const auto word_at = [&](size_t i) {
    uint64_t word;
    memcpy(&word, page.data() + i * sizeof word, sizeof word);
    return Recognise(word);
  };
  // Words of one stamp belong together if they are at their own places, or all moved alike.
  const auto same = [](const Recognised& a, const Recognised& b, size_t distance) {
    if (a.known != b.known) return false;
    if (!a.known) return true;
    return a.stamp == b.stamp && (a.stamp.kind == Stamp::kZero || b.index - a.index == distance);
  };
  size_t used = 0;
  int parts = 0;
  text[0] = '\0';
  for (size_t at = 0; at < kWordsPerPage;) {
    const Recognised first = word_at(at);
    size_t end = at + 1;
    while (end < kWordsPerPage && same(first, word_at(end), end - at)) ++end;
    if (++parts > kDescribedParts) {
      snprintf(text + used, size - used, ", and more");
      return;
    }
    char name[64] = "bytes of no page";
    if (first.known) DescribeStamp(first.stamp, name, sizeof name);
    char place[64] = "";
    if (first.known && first.stamp.kind != Stamp::kZero && first.index != at) {
      snprintf(place, sizeof place, ", its byte %zu on", first.index * sizeof(uint64_t));
    }
    const int n =
        snprintf(text + used, size - used, "%s%s%s (bytes %zu to %zu)", parts == 1 ? "" : ", then ",
                 name, place, at * sizeof(uint64_t), end * sizeof(uint64_t) - 1);
    if (n < 0 || static_cast<size_t>(n) >= size - used) return;
    used += static_cast<size_t>(n);
    at = end;
  }
}

}  // namespace faultline::churn
