// SPDX-License-Identifier: Apache-2.0
#include "client/cli/progress_line.h"

#include <absl/time/clock.h>
#include <unistd.h>

#include <cstdio>

#include "client/cli/format.h"

namespace faultline {
namespace {

constexpr absl::Duration kTerminalInterval = absl::Milliseconds(100);
constexpr absl::Duration kLineInterval = absl::Seconds(3);

}  // namespace

ProgressLine::ProgressLine(absl::string_view what)
    : what_(what),
      terminal_(isatty(STDERR_FILENO) != 0),
      start_(absl::Now()),
      next_(start_ + (terminal_ ? kTerminalInterval : kLineInterval)) {}

ProgressLine::~ProgressLine() {
  if (terminal_ && shown_) fputs("\r\033[K", stderr);
}

void ProgressLine::Update(uint64_t done_bytes, uint64_t total_bytes) {
  const absl::Time now = absl::Now();
  if (now < next_) return;
  next_ = now + (terminal_ ? kTerminalInterval : kLineInterval);
  shown_ = true;
  const std::string line = FormatProgress({done_bytes, total_bytes, now - start_});
  fprintf(stderr, terminal_ ? "\r%s  %s\033[K" : "%s  %s\n", what_.c_str(), line.c_str());
}

absl::Duration ProgressLine::elapsed() const { return absl::Now() - start_; }

}  // namespace faultline
