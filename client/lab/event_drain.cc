// SPDX-License-Identifier: Apache-2.0
#include "client/lab/event_drain.h"

#include <errno.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <utility>

namespace faultline {

bool WaitReadable(int fd, int stop) {
  for (;;) {
    std::array<pollfd, 2> polled = {{{fd, POLLIN, 0}, {stop, POLLIN, 0}}};
    if (poll(polled.data(), polled.size(), -1) < 0) continue;  // EINTR
    if (polled[1].revents != 0) return false;
    if (polled[0].revents != 0) return true;
  }
}

absl::StatusOr<std::unique_ptr<EventDrain>> EventDrain::Start(int fd) {
  UniqueFd stop(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!stop) return absl::ErrnoToStatus(errno, "eventfd");
  return std::unique_ptr<EventDrain>(new EventDrain(fd, std::move(stop)));
}

EventDrain::EventDrain(int fd, UniqueFd stop)
    : fd_(fd), stop_(std::move(stop)), thread_([this] { Run(); }) {}

EventDrain::~EventDrain() {
  eventfd_write(stop_.get(), 1);
  thread_.join();
}

void EventDrain::Run() {
  std::array<uffd_msg, 64> messages;
  while (WaitReadable(fd_, stop_.get())) {
    const ssize_t n = read(fd_, messages.data(), sizeof messages);
    for (ssize_t i = 0; i < n / static_cast<ssize_t>(sizeof(uffd_msg)); ++i) {
      if (messages[static_cast<size_t>(i)].event != UFFD_EVENT_PAGEFAULT) {
        events_.fetch_add(1, std::memory_order_relaxed);
      }
    }
  }
}

}  // namespace faultline
