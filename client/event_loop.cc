// SPDX-License-Identifier: Apache-2.0
#include "client/event_loop.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <future>
#include <utility>

#include "proto/urgency.h"

namespace faultline {

absl::StatusOr<std::unique_ptr<EventLoop>> EventLoop::Create(const std::string& thread_name,
                                                             const EventLoopOptions& options) {
  UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) return absl::ErrnoToStatus(errno, "epoll_create1");
  UniqueFd wakeup(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wakeup) return absl::ErrnoToStatus(errno, "eventfd");
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = 0;
  if (epoll_ctl(epoll.get(), EPOLL_CTL_ADD, wakeup.get(), &event) != 0) {
    return absl::ErrnoToStatus(errno, "epoll_ctl");
  }
  std::unique_ptr<EventLoop> loop(new EventLoop(std::move(epoll), std::move(wakeup), options));
  EventLoop* const raw = loop.get();
  loop->thread_ = std::thread([raw, thread_name] {
    pthread_setname_np(pthread_self(), thread_name.substr(0, 15).c_str());
    raw->Run();
  });
  return loop;
}

EventLoop::EventLoop(UniqueFd epoll, UniqueFd wakeup, const EventLoopOptions& options)
    : epoll_(std::move(epoll)),
      wakeup_(std::move(wakeup)),
      spin_(options.spin),
      pollable_(options.pollable) {}

EventLoop::~EventLoop() {
  {
    MutexLock lock(mu_);
    stopping_ = true;
  }
  Wake();
  thread_.join();
}

void EventLoop::Wake() {
  const uint64_t one = 1;
  static_cast<void>(write(wakeup_.get(), &one, sizeof one));
}

void EventLoop::Post(Task task) {
  bool first;
  {
    MutexLock lock(mu_);
    first = tasks_.empty();
    tasks_.push_back(std::move(task));
  }
  if (first) Wake();
}

void EventLoop::Flush() {
  std::promise<void> done;
  Post([&done] { done.set_value(); });
  done.get_future().wait();
}

void EventLoop::RunTask() {
  Task task;
  {
    MutexLock lock(mu_);
    if (tasks_.empty()) return;
    task = std::move(tasks_.front());
    tasks_.pop_front();
  }
  task();
}

bool EventLoop::HasTask() {
  MutexLock lock(mu_);
  return !tasks_.empty();
}

absl::Status EventLoop::Add(int fd, Handler handler) {
  MutexLock lock(mu_);
  const uint64_t token = next_token_++;
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = token;
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
    return absl::ErrnoToStatus(errno, "epoll_ctl");
  }
  tokens_[fd] = token;
  handlers_[token] = std::make_shared<Handler>(std::move(handler));
  return absl::OkStatus();
}

void EventLoop::Remove(int fd) {
  std::shared_ptr<Handler> handler;  // dies after the lock is released: it may own anything
  MutexLock lock(mu_);
  const auto token = tokens_.find(fd);
  if (token == tokens_.end()) return;
  epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
  auto node = handlers_.extract(token->second);
  if (!node.empty()) handler = std::move(node.mapped());
  tokens_.erase(token);
}

void EventLoop::Dispatch(uint64_t token) {
  std::shared_ptr<Handler> handler;
  {
    MutexLock lock(mu_);
    const auto found = handlers_.find(token);
    if (found == handlers_.end()) return;  // removed since epoll_wait
    handler = found->second;
  }
  (*handler)();
}

int EventLoop::HandleReadable(bool wait) {
  std::array<epoll_event, 16> events;
  const int n =
      epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), wait ? -1 : 0);
  for (int i = 0; i < n; ++i) {
    const uint64_t token = events[static_cast<size_t>(i)].data.u64;
    if (token != 0) {
      Dispatch(token);
      continue;
    }
    uint64_t ignored;
    static_cast<void>(read(wakeup_.get(), &ignored, sizeof ignored));
    MutexLock lock(mu_);
    if (stopping_) return -1;
  }
  return n > 0 ? n : 0;
}

void EventLoop::SetSpinning(bool spinning) {
  if (spinning == spinning_) return;
  spinning_ = spinning;
  if (spinning) {
    polling_ = pollable_ != nullptr && pollable_->Begin();
  } else if (std::exchange(polling_, false)) {
    pollable_->End();
  }
}

void EventLoop::Spin(bool busy) {
  busy = (polling_ && pollable_->Poll()) || busy;
  const SteadyClock::time_point now = SteadyClock::now();
  if (busy) {
    spin_.OnProgress(now);
    return;
  }
  sched_yield();
  const SteadyClock::time_point back = SteadyClock::now();
  spin_.OnYield(back, back - now);
}

void EventLoop::Run() {
  SetUrgency(Urgency::kFault);
  for (;;) {
    if (spin_.enabled()) SetSpinning(spin_.ShouldSpin(SteadyClock::now()));
    // Descriptors go before tasks: what they tell may be waited for by those who wrote it.
    const bool has_task = HasTask();
    const int handled = HandleReadable(!has_task && !spinning_);
    if (handled < 0) break;
    if (has_task) RunTask();
    if (spinning_) Spin(handled > 0 || has_task);
  }
  SetSpinning(false);
}

}  // namespace faultline
