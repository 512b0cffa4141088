// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_LAB_EVENT_DRAIN_H_
#define FAULTLINE_CLIENT_LAB_EVENT_DRAIN_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>

#include "client/unique_fd.h"

namespace faultline {

// Waits until `fd` can be read, or until `stop` can. False on `stop`.
bool WaitReadable(int fd, int stop);

// A thread that reads the events of a userfaultfd and forgets them, so that those who raise them go
// on. It allocates nothing and touches no memory that is served: either could wait for itself.
class EventDrain {
 public:
  // `fd` is borrowed.
  static absl::StatusOr<std::unique_ptr<EventDrain>> Start(int fd);
  // Ends the thread. Nobody may be waiting for an event to be read any more.
  ~EventDrain();

  // What was read that was no page fault.
  uint64_t events() const { return events_.load(std::memory_order_relaxed); }

 private:
  EventDrain(int fd, UniqueFd stop);
  void Run();

  const int fd_;
  const UniqueFd stop_;  // an eventfd
  std::atomic<uint64_t> events_ = 0;
  std::thread thread_;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_LAB_EVENT_DRAIN_H_
