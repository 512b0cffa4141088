// SPDX-License-Identifier: Apache-2.0
#include "deploy/e2e/page_check.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <mutex>
#include <thread>

namespace faultline::e2e {
namespace {

constexpr size_t kListedPages = 64;

thread_local sigjmp_buf back;

void OnSigbus(int) { siglongjmp(back, 1); }

// Runs `access`; false where it ended in SIGBUS. Not for anything that owns something.
template <typename Access>
bool SurvivesSigbus(Access access) {
  // The mask is not saved, which would cost a system call: SA_NODEFER leaves it as it is.
  if (sigsetjmp(back, 0) != 0) return false;
  access();
  return true;
}

void CatchSigbus() {
  struct sigaction action {};
  action.sa_handler = OnSigbus;
  action.sa_flags = SA_NODEFER;
  sigaction(SIGBUS, &action, nullptr);
}

// What Write() puts there: differs from page to page and along the page.
void WrittenPage(uint64_t page, std::byte* bytes) {
  for (size_t i = 0; i < kPageBytes; i += sizeof(uint64_t)) {
    const uint64_t word = (page * kPageBytes + i) * 0x9e3779b97f4a7c15 + 1;
    memcpy(bytes + i, &word, sizeof word);
  }
}

}  // namespace

void Die(const std::string& message) {
  fprintf(stderr, "%s: %s\n", message.c_str(), strerror(errno));
  exit(1);
}

uint64_t ParseNumber(const std::string& text) {
  char* end = nullptr;
  errno = 0;
  const uint64_t number = strtoull(text.c_str(), &end, 0);
  if (text.empty() || *end != '\0' || errno != 0) {
    errno = EINVAL;
    Die("\"" + text + "\" is no number");
  }
  return number;
}

ExpectedPages::ExpectedPages(const std::string& path, uint64_t pages) : written_(pages) {
  CatchSigbus();
  if (path.empty()) return;
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat status;
  if (fd < 0 || fstat(fd, &status) != 0) Die("cannot open " + path);
  file_bytes_ = static_cast<uint64_t>(status.st_size);
  void* file = mmap(nullptr, file_bytes_, PROT_READ, MAP_PRIVATE, fd, 0);
  if (file == MAP_FAILED) Die("cannot map " + path);
  close(fd);
  file_ = static_cast<const std::byte*>(file);
}

ExpectedPages::~ExpectedPages() {
  if (file_ != nullptr) munmap(const_cast<std::byte*>(file_), file_bytes_);
}

void ExpectedPages::ExpectedPage(uint64_t page, std::byte* bytes) const {
  if (written_[page]) {
    WrittenPage(page, bytes);
    return;
  }
  const uint64_t offset = page * kPageBytes;
  const size_t from_file =
      offset < file_bytes_ ? std::min<uint64_t>(kPageBytes, file_bytes_ - offset) : 0;
  if (from_file > 0) memcpy(bytes, file_ + offset, from_file);
  memset(bytes + from_file, 0, kPageBytes - from_file);
}

ExpectedPages::Outcome ExpectedPages::CheckPage(const std::byte* memory, uint64_t page,
                                                uint64_t* wrong_offset) const {
  std::byte expected[kPageBytes];
  std::byte found[kPageBytes];
  ExpectedPage(page, expected);
  const std::byte* from = memory + page * kPageBytes;
  if (!SurvivesSigbus([&] { memcpy(found, from, kPageBytes); })) return Outcome::kSigbus;
  if (memcmp(found, expected, kPageBytes) == 0) return Outcome::kRight;
  const auto at = std::mismatch(found, found + kPageBytes, expected).first - found;
  *wrong_offset = page * kPageBytes + static_cast<uint64_t>(at);
  return Outcome::kWrong;
}

struct ExpectedPages::Tally {
  uint64_t right = 0, wrong = 0;
  uint64_t first_wrong = UINT64_MAX;
  std::vector<uint64_t> sigbus;

  void Add(const Tally& other) {
    right += other.right;
    wrong += other.wrong;
    first_wrong = std::min(first_wrong, other.first_wrong);
    sigbus.insert(sigbus.end(), other.sigbus.begin(), other.sigbus.end());
  }
};

std::string ExpectedPages::Check(const std::byte* memory, Range range, int threads,
                                 Sharing sharing) const {
  std::mutex mu;
  Tally all;
  const auto check = [&](uint64_t first, uint64_t step) {
    Tally tally;
    for (uint64_t i = first; i < range.count; i += step) {
      uint64_t wrong_offset = 0;
      switch (CheckPage(memory, range.first + i, &wrong_offset)) {
        case Outcome::kRight:
          ++tally.right;
          break;
        case Outcome::kSigbus:
          tally.sigbus.push_back(range.first + i);
          break;
        case Outcome::kWrong:
          ++tally.wrong;
          tally.first_wrong = std::min(tally.first_wrong, wrong_offset);
      }
    }
    const std::lock_guard<std::mutex> lock(mu);
    all.Add(tally);
  };
  std::vector<std::thread> running;
  for (int i = 0; i < threads; ++i) {
    const bool split = sharing == Sharing::kSplit;
    running.emplace_back(check, split ? static_cast<uint64_t>(i) : 0,
                         split ? static_cast<uint64_t>(threads) : 1);
  }
  for (std::thread& thread : running) thread.join();

  std::sort(all.sigbus.begin(), all.sigbus.end());
  std::string listed = all.sigbus.empty() ? "none" : "";
  for (size_t i = 0; i < std::min(all.sigbus.size(), kListedPages); ++i) {
    listed += (i == 0 ? "" : ",") + std::to_string(all.sigbus[i]);
  }
  return "pages=" + std::to_string(all.right + all.wrong + all.sigbus.size()) +
         " right=" + std::to_string(all.right) + " sigbus=" + std::to_string(all.sigbus.size()) +
         " wrong=" + std::to_string(all.wrong) + " sigbus_pages=" + listed +
         " first_wrong=" + (all.wrong == 0 ? "none" : std::to_string(all.first_wrong));
}

std::string ExpectedPages::Write(std::byte* memory, Range range) {
  uint64_t sigbus = 0;
  for (uint64_t page = range.first; page < range.first + range.count; ++page) {
    std::byte bytes[kPageBytes];
    WrittenPage(page, bytes);
    if (SurvivesSigbus([&] { memcpy(memory + page * kPageBytes, bytes, kPageBytes); })) {
      written_[page] = 1;
    } else {
      ++sigbus;
    }
  }
  return "pages=" + std::to_string(range.count) + " sigbus=" + std::to_string(sigbus);
}

}  // namespace faultline::e2e
