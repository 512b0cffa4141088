// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_SOURCE_FAULTY_PAGE_SOURCE_H_
#define FAULTLINE_CLIENT_SOURCE_FAULTY_PAGE_SOURCE_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "client/source/page_source.h"
#include "proto/mutex.h"

namespace faultline {

// Puts faults in front of another source: answers that are held back, single pages that are
// damaged, and a share of fetches that fail, chosen by a seed. For tests. Thread-safe.
class FaultyPageSource final : public PageSource {
 public:
  FaultyPageSource(std::shared_ptr<PageSource> inner, uint32_t seed)
      : inner_(std::move(inner)), random_(seed) {}

  // From now on fetches wait in Pending() for Release().
  void Hold() {
    MutexLock lock(mu_);
    hold_ = true;
  }
  // Answers everything that waits, in the order of the fetches, and holds nothing back any more.
  void Release() {
    std::deque<std::function<void()>> held;
    {
      MutexLock lock(mu_);
      hold_ = false;
      held.swap(held_);
    }
    for (auto& answer : held) answer();
  }
  size_t pending() const {
    MutexLock lock(mu_);
    return held_.size();
  }
  // Every fetch that touches `page` fails with `status`.
  void FailPage(PageIndex page, absl::Status status) {
    MutexLock lock(mu_);
    failing_pages_[page] = std::move(status);
  }
  void HealPage(PageIndex page) {
    MutexLock lock(mu_);
    failing_pages_.erase(page);
  }
  // This share (0 to 1) of all fetches fails with UNAVAILABLE.
  void FailShare(double share) {
    MutexLock lock(mu_);
    failing_share_ = share;
  }
  std::vector<PageRange> fetched() const {
    MutexLock lock(mu_);
    return fetched_;
  }

  void Fetch(PageRange range, FetchLane lane, absl::Time deadline, FetchDone done) override {
    absl::Status status;
    {
      MutexLock lock(mu_);
      fetched_.push_back(range);
      status = Choose(range);
      if (hold_) {
        auto shared = std::make_shared<FetchDone>(std::move(done));
        held_.push_back([this, range, lane, deadline, status, shared] {
          Answer(range, lane, deadline, status, std::move(*shared));
        });
        return;
      }
    }
    Answer(range, lane, deadline, status, std::move(done));
  }

  PageCount size() const override { return inner_->size(); }
  PageCount max_fetch() const override { return inner_->max_fetch(); }
  const FetchStages* stages() const override { return inner_->stages(); }

 private:
  absl::Status Choose(PageRange range) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    for (const auto& [page, status] : failing_pages_) {
      // A new one: abseil, built without ThreadSanitizer, hides from it how copies are counted.
      if (range.Contains(page)) return absl::Status(status.code(), status.message());
    }
    if (std::uniform_real_distribution<double>(0, 1)(random_) < failing_share_) {
      return absl::UnavailableError("injected");
    }
    return absl::OkStatus();
  }

  void Answer(PageRange range, FetchLane lane, absl::Time deadline, const absl::Status& status,
              FetchDone done) {
    if (status.ok()) {
      inner_->Fetch(range, lane, deadline, std::move(done));
    } else {
      done(status);
    }
  }

  const std::shared_ptr<PageSource> inner_;
  mutable Mutex mu_;
  std::mt19937 random_ ABSL_GUARDED_BY(mu_);
  bool hold_ ABSL_GUARDED_BY(mu_) = false;
  std::deque<std::function<void()>> held_ ABSL_GUARDED_BY(mu_);
  std::map<PageIndex, absl::Status> failing_pages_ ABSL_GUARDED_BY(mu_);
  double failing_share_ ABSL_GUARDED_BY(mu_) = 0;
  std::vector<PageRange> fetched_ ABSL_GUARDED_BY(mu_);
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_SOURCE_FAULTY_PAGE_SOURCE_H_
