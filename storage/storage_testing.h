// SPDX-License-Identifier: Apache-2.0
//
// What the tests of storage/ share: a directory that goes away, pages of a known pattern, and
// reading back what a store or volume holds.
#ifndef FAULTLINE_STORAGE_STORAGE_TESTING_H_
#define FAULTLINE_STORAGE_STORAGE_TESTING_H_

#include <gtest/gtest.h>
#include <stdlib.h>

#include <array>
#include <cstring>
#include <filesystem>
#include <map>
#include <random>
#include <string>

#include "proto/page_codec.h"
#include "proto/page_testing.h"
#include "storage/page_store.h"
#include "storage/volume.h"

namespace faultline {

#define ASSERT_STATUS_OK(expression)                  \
  do {                                                \
    const auto& status_ = (expression);               \
    ASSERT_TRUE(status_.ok()) << StatusText(status_); \
  } while (false)

inline std::string StatusText(const absl::Status& status) { return status.ToString(); }
template <typename T>
std::string StatusText(const absl::StatusOr<T>& result) {
  return result.status().ToString();
}

// Succeeds if `result` failed with `code` and its message holds `text`.
inline testing::AssertionResult FailsWith(const absl::Status& status, absl::StatusCode code,
                                          absl::string_view text) {
  if (status.code() == code &&
      std::string(status.message()).find(std::string(text)) != std::string::npos) {
    return testing::AssertionSuccess();
  }
  return testing::AssertionFailure()
         << status.ToString() << ", expected " << absl::StatusCodeToString(code) << " with \""
         << text << "\"";
}
template <typename T>
testing::AssertionResult FailsWith(const absl::StatusOr<T>& result, absl::StatusCode code,
                                   absl::string_view text) {
  return FailsWith(result.status(), code, text);
}

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    path_ = testing::TempDir() + "/faultline_storage_XXXXXX";
    if (mkdtemp(path_.data()) == nullptr) abort();
  }
  ~TemporaryDirectory() {
    std::error_code ignored;  // of what a test leaves, nothing matters any more
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;

  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// 4096 bytes that no other page and version has; never all zero.
inline std::array<std::byte, kPageSize> PatternPage(uint64_t page, uint64_t version) {
  std::array<std::byte, kPageSize> bytes;
  std::mt19937_64 random(page * 1'000'003 + version + 1);
  for (size_t at = 0; at < kPageSize; at += sizeof(uint64_t)) {
    const uint64_t word = random() | 1;
    memcpy(bytes.data() + at, &word, sizeof word);
  }
  return bytes;
}

inline std::string PatternEncoded(uint64_t page, uint64_t version) {
  std::string encoded;
  EncodePage(PageIndex(page), PatternPage(page, version), Codec::kRaw, &encoded);
  return encoded;
}

// The encoded pages of `range` that `layer` holds; checks that they come in ascending order.
inline absl::StatusOr<std::map<uint64_t, std::string>> ReadLayer(PageStore& store, LayerId layer,
                                                                 PageRange range) {
  std::map<uint64_t, std::string> found;
  const absl::Status status =
      store.Read(layer, range, [&](PageIndex page, absl::string_view encoded) {
        EXPECT_TRUE(found.empty() || found.rbegin()->first < page.raw()) << page.raw();
        found[page.raw()] = std::string(encoded);
        return absl::OkStatus();
      });
  if (!status.ok()) return status;
  return found;
}

// The decoded pages of `range` that are not zero. Fails the test where `volume` does not hand out
// every page of `range` once, ascending.
inline absl::StatusOr<std::map<uint64_t, std::array<std::byte, kPageSize>>> ReadVolume(
    Volume& volume, PageRange range) {
  std::map<uint64_t, std::array<std::byte, kPageSize>> found;
  PageIndex next = range.first;
  const absl::Status status = volume.Read(
      range,
      [&](PageIndex page, absl::string_view encoded) -> absl::Status {
        EXPECT_EQ(page, next);
        next = page + PageCount(1);
        std::array<std::byte, kPageSize> scratch;
        const absl::StatusOr<PageBytes> bytes = DecodePage(page, encoded, scratch);
        if (!bytes.ok()) return bytes.status();
        EXPECT_FALSE(IsZeroPage(*bytes)) << "page " << page.raw() << " of zeros given as data";
        memcpy(found[page.raw()].data(), bytes->data(), kPageSize);
        return absl::OkStatus();
      },
      [&](PageRange zeros) {
        EXPECT_EQ(zeros.first, next);
        EXPECT_FALSE(zeros.empty());
        next = zeros.end();
        return absl::OkStatus();
      });
  if (!status.ok()) return status;
  EXPECT_EQ(next, range.end());
  return found;
}

// Compares all bytes, but prints only which pages differ.
template <typename Bytes>
testing::AssertionResult SamePages(const std::map<uint64_t, Bytes>& found,
                                   const std::map<uint64_t, Bytes>& expected) {
  if (found == expected) return testing::AssertionSuccess();
  testing::AssertionResult result = testing::AssertionFailure();
  for (const auto& [page, bytes] : expected) {
    if (const auto it = found.find(page); it == found.end()) {
      result << "page " << page << " is missing; ";
    } else if (it->second != bytes) {
      result << "page " << page << " has other bytes; ";
    }
  }
  for (const auto& [page, bytes] : found) {
    if (!expected.contains(page)) result << "page " << page << " is there; ";
  }
  return result;
}

// Writes page -> version pairs in one batch.
inline absl::Status WriteLayer(PageStore& store, LayerId layer,
                               const std::map<uint64_t, uint64_t>& pages,
                               const std::vector<PageRange>& deletes = {},
                               Durability durability = Durability::kNone) {
  std::map<uint64_t, std::string> encoded;
  PageWrites writes;
  writes.deletes = deletes;
  for (const auto& [page, version] : pages) {
    writes.puts.push_back({PageIndex(page), encoded[page] = PatternEncoded(page, version)});
  }
  return store.Write(layer, writes, durability);
}

inline absl::Status WriteVolume(Volume& volume, const VolumeWriter& writer,
                                const std::map<uint64_t, uint64_t>& pages,
                                const std::vector<PageRange>& trims = {}) {
  std::map<uint64_t, std::string> encoded;
  VolumeWrites writes;
  writes.trims = trims;
  for (const auto& [page, version] : pages) {
    writes.pages.push_back({PageIndex(page), encoded[page] = PatternEncoded(page, version)});
  }
  return volume.Write(writer, writes);
}

inline absl::Status WriteVolume(Volume& volume, uint64_t epoch,
                                const std::map<uint64_t, uint64_t>& pages,
                                const std::vector<PageRange>& trims = {}) {
  return WriteVolume(volume, VolumeWriter{epoch, 0}, pages, trims);
}

}  // namespace faultline

#endif  // FAULTLINE_STORAGE_STORAGE_TESTING_H_
