// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_BENCH_VM_OUTPUT_LINES_H_
#define FAULTLINE_CLIENT_BENCH_VM_OUTPUT_LINES_H_

#include <absl/functional/function_ref.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>
#include <absl/time/time.h>

#include <atomic>
#include <cstddef>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "client/unique_fd.h"
#include "proto/mutex.h"

namespace faultline::bench {

struct StampedLine {
  absl::Time at;  // when its end was read
  std::string text;
};

// What a program writes into a pipe, line by line, each with its time. Thread-safe; a thread of its
// own reads, so that the times are right whatever else is done.
class OutputLines {
 public:
  // `what` stands for the program in messages.
  static absl::StatusOr<std::unique_ptr<OutputLines>> Create(std::string what);
  ~OutputLines();
  OutputLines(const OutputLines&) = delete;
  OutputLines& operator=(const OutputLines&) = delete;

  // For the program that is to write; to be closed here once that runs.
  int write_end() const { return write_end_.get(); }
  void CloseWriteEnd() { write_end_.reset(); }

  std::vector<StampedLine> Lines() const;
  // The first line of all that is `wanted`. UNAVAILABLE, with the last lines, where the program
  // closes its end before there is one; DEADLINE_EXCEEDED where there is none in time.
  absl::StatusOr<StampedLine> WaitFor(absl::string_view awaited,
                                      absl::FunctionRef<bool(const std::string&)> wanted,
                                      absl::Duration timeout);
  // The last few, for messages.
  std::string Tail() const;

 private:
  OutputLines(std::string what, UniqueFd read_end, UniqueFd write_end);
  void Read();

  const std::string what_;
  const UniqueFd read_end_;
  UniqueFd write_end_;
  std::atomic<bool> stopping_ = false;
  mutable Mutex mu_;
  CondVar changed_;
  std::vector<StampedLine> lines_ ABSL_GUARDED_BY(mu_);
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace faultline::bench

#endif  // FAULTLINE_CLIENT_BENCH_VM_OUTPUT_LINES_H_
