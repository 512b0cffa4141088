// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_CLI_PROGRESS_LINE_H_
#define FAULTLINE_CLIENT_CLI_PROGRESS_LINE_H_

#include <absl/strings/string_view.h>
#include <absl/time/time.h>

#include <cstdint>
#include <string>

namespace faultline {

// Shows on stderr how far a transfer is: one line that changes on a terminal, otherwise a new line
// every few seconds. Not thread-safe.
class ProgressLine {
 public:
  // `what` begins each line: "import disk".
  explicit ProgressLine(absl::string_view what);
  // Leaves the line of a terminal empty.
  ~ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  // `total_bytes`: 0 while it is not known.
  void Update(uint64_t done_bytes, uint64_t total_bytes);

  absl::Duration elapsed() const;

 private:
  const std::string what_;
  const bool terminal_;
  const absl::Time start_;
  absl::Time next_;
  bool shown_ = false;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_CLI_PROGRESS_LINE_H_
