// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_RACES_ANSWER_THREADS_H_
#define FAULTLINE_CLIENT_RACES_ANSWER_THREADS_H_

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "client/source/page_source.h"

namespace faultline {

// Threads that answer fetches, as those of a network source do, so that as many fills run beside
// each other. Destruction answers what was asked for, first. Thread-safe.
class AnswerThreads {
 public:
  explicit AnswerThreads(int count) {
    for (int i = 0; i < count; ++i) threads_.emplace_back([this] { Run(); });
  }
  ~AnswerThreads() {
    {
      std::lock_guard<std::mutex> lock(mu_);
      stop_ = true;
    }
    changed_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }
  AnswerThreads(const AnswerThreads&) = delete;
  AnswerThreads& operator=(const AnswerThreads&) = delete;

  // `inner`, with its answers on these threads. Borrows the threads.
  std::shared_ptr<PageSource> AnswerFor(std::shared_ptr<PageSource> inner) {
    return std::make_shared<Source>(this, std::move(inner));
  }

 private:
  class Source final : public PageSource {
   public:
    Source(AnswerThreads* threads, std::shared_ptr<PageSource> inner)
        : threads_(threads), inner_(std::move(inner)) {}

    void Fetch(PageRange range, FetchLane lane, absl::Time deadline, FetchDone done) override {
      auto shared = std::make_shared<FetchDone>(std::move(done));
      threads_->Post([inner = inner_, range, lane, deadline, shared] {
        inner->Fetch(range, lane, deadline, std::move(*shared));
      });
    }
    PageCount size() const override { return inner_->size(); }
    PageCount max_fetch() const override { return inner_->max_fetch(); }

   private:
    AnswerThreads* const threads_;
    const std::shared_ptr<PageSource> inner_;
  };

  void Post(std::function<void()> answer) {
    {
      std::lock_guard<std::mutex> lock(mu_);
      answers_.push_back(std::move(answer));
    }
    changed_.notify_one();
  }

  void Run() {
    std::unique_lock<std::mutex> lock(mu_);
    for (;;) {
      changed_.wait(lock, [this] { return stop_ || !answers_.empty(); });
      if (answers_.empty()) return;
      std::function<void()> answer = std::move(answers_.front());
      answers_.pop_front();
      lock.unlock();
      answer();
      answer = nullptr;
      lock.lock();
    }
  }

  std::mutex mu_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> answers_;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_RACES_ANSWER_THREADS_H_
