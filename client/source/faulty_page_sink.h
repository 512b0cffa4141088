// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_SOURCE_FAULTY_PAGE_SINK_H_
#define FAULTLINE_CLIENT_SOURCE_FAULTY_PAGE_SINK_H_

#include <algorithm>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "client/source/kept_pages.h"
#include "client/source/page_sink.h"
#include "proto/mutex.h"

namespace faultline {

// Puts faults in front of another sink: writes that are held back, or let go in another order, and
// writes that fail, chosen by a seed, some of them although they were applied. For tests.
// Thread-safe.
class FaultyPageSink final : public PageSink {
 public:
  // What becomes of a write that fails.
  enum class Fate {
    kDropped,  // it never reached the other sink
    kApplied,  // it did, and only the answer was lost
  };

  FaultyPageSink(std::shared_ptr<PageSink> inner, uint32_t seed)
      : inner_(std::move(inner)), random_(seed) {}

  // From now on writes wait for Release().
  void Hold() {
    MutexLock lock(mu_);
    hold_ = true;
  }
  // Lets everything go that waits, in the order of the writes, and holds nothing back any more.
  void Release() { LetGo(TakeHeld()); }
  // The same, in an order chosen by the seed.
  void ReleaseShuffled() {
    std::vector<Held> held = TakeHeld();
    {
      MutexLock lock(mu_);
      std::shuffle(held.begin(), held.end(), random_);
    }
    LetGo(std::move(held));
  }
  size_t pending() const {
    MutexLock lock(mu_);
    return held_.size();
  }

  // The next `count` writes fail with `status`.
  void FailNext(size_t count, absl::Status status, Fate fate = Fate::kDropped) {
    MutexLock lock(mu_);
    fail_next_ = count;
    next_status_ = std::move(status);
    next_fate_ = fate;
  }
  // This share (0 to 1) of all writes fails with UNAVAILABLE, half of them although applied.
  void FailShare(double share) {
    MutexLock lock(mu_);
    failing_share_ = share;
  }
  // The first page and the length of each write.
  std::vector<std::pair<PageIndex, PageCount>> written() const {
    MutexLock lock(mu_);
    return written_;
  }

  void Write(std::span<const PageToWrite> pages, absl::Time deadline, WriteDone done) override {
    Verdict verdict;
    {
      MutexLock lock(mu_);
      written_.emplace_back(pages.front().page, PageCount(pages.size()));
      verdict = Choose();
      if (hold_) {
        held_.push_back({std::make_unique<KeptPages>(pages), deadline, std::move(done), verdict});
        return;
      }
    }
    Pass(pages, deadline, std::move(done), verdict);
  }

  PageCount size() const override { return inner_->size(); }
  PageCount max_write() const override { return inner_->max_write(); }

 private:
  struct Verdict {
    absl::Status status;
    Fate fate = Fate::kApplied;
  };
  struct Held {
    std::unique_ptr<KeptPages> pages;
    absl::Time deadline;
    WriteDone done;
    Verdict verdict;
  };

  Verdict Choose() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (fail_next_ > 0) {
      --fail_next_;
      return {next_status_, next_fate_};
    }
    const double drawn = std::uniform_real_distribution<double>(0, 1)(random_);
    if (drawn >= failing_share_) return {};
    return {absl::UnavailableError("injected"),
            drawn < failing_share_ / 2 ? Fate::kApplied : Fate::kDropped};
  }

  std::vector<Held> TakeHeld() {
    MutexLock lock(mu_);
    hold_ = false;
    return std::exchange(held_, {});
  }

  void LetGo(std::vector<Held> held) {
    for (Held& write : held) {
      Pass(write.pages->pages(), write.deadline, std::move(write.done), write.verdict);
    }
  }

  void Pass(std::span<const PageToWrite> pages, absl::Time deadline, WriteDone done,
            const Verdict& verdict) {
    if (verdict.status.ok()) {
      inner_->Write(pages, deadline, std::move(done));
    } else if (verdict.fate == Fate::kDropped) {
      done(verdict.status);
    } else {
      inner_->Write(
          pages, deadline,
          [status = verdict.status, done = std::move(done)](absl::Status written) mutable {
            done(written.ok() ? std::move(status) : std::move(written));
          });
    }
  }

  const std::shared_ptr<PageSink> inner_;
  mutable Mutex mu_;
  std::mt19937 random_ ABSL_GUARDED_BY(mu_);
  bool hold_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<Held> held_ ABSL_GUARDED_BY(mu_);
  size_t fail_next_ ABSL_GUARDED_BY(mu_) = 0;
  absl::Status next_status_ ABSL_GUARDED_BY(mu_);
  Fate next_fate_ ABSL_GUARDED_BY(mu_) = Fate::kDropped;
  double failing_share_ ABSL_GUARDED_BY(mu_) = 0;
  std::vector<std::pair<PageIndex, PageCount>> written_ ABSL_GUARDED_BY(mu_);
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_SOURCE_FAULTY_PAGE_SINK_H_
