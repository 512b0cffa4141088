// SPDX-License-Identifier: Apache-2.0
#include "client/bench/vm/output_lines.h"

#include <absl/status/status.h>
#include <absl/strings/str_cat.h>
#include <absl/time/clock.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace faultline::bench {
namespace {

constexpr int kLookMilliseconds = 50;
constexpr size_t kTailLines = 5;

}  // namespace

absl::StatusOr<std::unique_ptr<OutputLines>> OutputLines::Create(std::string what) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return absl::ErrnoToStatus(errno, "cannot make a pipe");
  return std::unique_ptr<OutputLines>(
      new OutputLines(std::move(what), UniqueFd(ends[0]), UniqueFd(ends[1])));
}

OutputLines::OutputLines(std::string what, UniqueFd read_end, UniqueFd write_end)
    : what_(std::move(what)),
      read_end_(std::move(read_end)),
      write_end_(std::move(write_end)),
      thread_([this] { Read(); }) {}

OutputLines::~OutputLines() {
  stopping_ = true;
  thread_.join();
}

void OutputLines::Read() {
  std::string rest;
  while (!stopping_) {
    pollfd readable{read_end_.get(), POLLIN, 0};
    if (poll(&readable, 1, kLookMilliseconds) <= 0) continue;
    char bytes[4096];
    const ssize_t n = read(read_end_.get(), bytes, sizeof bytes);
    if (n < 0 && errno == EINTR) continue;
    const absl::Time now = absl::Now();
    MutexLock lock(mu_);
    if (n <= 0) break;
    rest.append(bytes, static_cast<size_t>(n));
    for (size_t end; (end = rest.find('\n')) != rest.npos; rest.erase(0, end + 1)) {
      std::string line = rest.substr(0, end);
      line.erase(std::remove(line.begin(), line.end(), '\r'), line.end());
      lines_.push_back({now, std::move(line)});
    }
    changed_.SignalAll();
  }
  MutexLock lock(mu_);
  ended_ = true;
  changed_.SignalAll();
}

std::vector<StampedLine> OutputLines::Lines() const {
  MutexLock lock(mu_);
  return lines_;
}

absl::StatusOr<StampedLine> OutputLines::WaitFor(absl::string_view awaited,
                                                 absl::FunctionRef<bool(const std::string&)> wanted,
                                                 absl::Duration timeout) {
  const auto deadline = std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(timeout);
  bool ended = false;
  {
    MutexLock lock(mu_);
    for (size_t next = 0;; ++next) {
      while (next == lines_.size() && !ended_ && std::chrono::steady_clock::now() < deadline) {
        changed_.WaitUntil(mu_, deadline);
      }
      if (next == lines_.size()) break;
      if (wanted(lines_[next].text)) return lines_[next];
    }
    ended = ended_;
  }
  if (ended) {
    return absl::UnavailableError(
        absl::StrCat(what_, " has ended before ", awaited, "; it said last:\n", Tail()));
  }
  return absl::DeadlineExceededError(absl::StrCat(awaited, " of ", what_, " did not come within ",
                                                  absl::FormatDuration(timeout),
                                                  "; it said last:\n", Tail()));
}

std::string OutputLines::Tail() const {
  MutexLock lock(mu_);
  std::string tail;
  for (size_t i = lines_.size() - std::min(lines_.size(), kTailLines); i < lines_.size(); ++i) {
    absl::StrAppend(&tail, "  ", lines_[i].text, "\n");
  }
  return tail;
}

}  // namespace faultline::bench
