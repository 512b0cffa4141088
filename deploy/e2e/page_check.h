// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_DEPLOY_E2E_PAGE_CHECK_H_
#define FAULTLINE_DEPLOY_E2E_PAGE_CHECK_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace faultline::e2e {

inline constexpr size_t kPageBytes = 4096;

// What every page of some memory must read as: a file, which counts as zeros beyond its end, or
// zeros only, and over that what Write() has put there. Check() and Write() are for one thread.
class ExpectedPages {
 public:
  // Of `pages` pages. An empty `path` means zeros. Ends the program where the file cannot be read.
  ExpectedPages(const std::string& path, uint64_t pages);
  ~ExpectedPages();
  ExpectedPages(const ExpectedPages&) = delete;
  ExpectedPages& operator=(const ExpectedPages&) = delete;

  uint64_t pages() const { return written_.size(); }

  // Who touches which of the pages.
  enum class Sharing {
    kSplit,  // each page by one thread
    kRace,   // each page by every thread
  };
  struct Range {
    uint64_t first = 0;
    uint64_t count = 0;
  };
  // Touches the pages of `range` of the memory at `memory` with `threads` threads, and compares
  // every byte. Returns the outcome as "pages=N right=N sigbus=N wrong=N sigbus_pages=N,N,...
  // first_wrong=OFFSET"; each page counts once for each thread that touches it.
  std::string Check(const std::byte* memory, Range range, int threads, Sharing sharing) const;

  // Overwrites the pages of `range`, and expects that from here on. Returns "pages=N sigbus=N".
  std::string Write(std::byte* memory, Range range);

 private:
  struct Tally;
  enum class Outcome { kRight, kWrong, kSigbus };

  void ExpectedPage(uint64_t page, std::byte* bytes) const;
  Outcome CheckPage(const std::byte* memory, uint64_t page, uint64_t* wrong_offset) const;

  const std::byte* file_ = nullptr;
  uint64_t file_bytes_ = 0;
  std::vector<char> written_;  // for each page
};

// Ends the program with `message` and the text of errno.
[[noreturn]] void Die(const std::string& message);

// Reads a whole number. Ends the program where `text` is none.
uint64_t ParseNumber(const std::string& text);

}  // namespace faultline::e2e

#endif  // FAULTLINE_DEPLOY_E2E_PAGE_CHECK_H_
