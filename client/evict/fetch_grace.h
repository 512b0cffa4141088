// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_EVICT_FETCH_GRACE_H_
#define FAULTLINE_CLIENT_EVICT_FETCH_GRACE_H_

#include <cstdint>
#include <deque>
#include <utility>

#include "proto/mutex.h"

namespace faultline {

// FetchGrace: tells when no bytes are on their way any more that were asked for before some moment.
//
// A page that was written back may be fetched again, but a fetch that was under way at that time
// may bring what the page held before. So everything that carries bytes of the source holds a
// Token, from before the source is asked until they were filled or dropped, and a page counts as
// being at the source only once the grace that began with the write's acknowledgement has passed.
//
// Thread-safe.
class FetchGrace {
 public:
  using Epoch = uint64_t;

  // Copies are of the same moment. An empty one stands for nothing. The FetchGrace outlives it.
  class Token {
   public:
    Token() = default;
    Token(const Token& other) : grace_(other.grace_), epoch_(other.epoch_) {
      if (grace_ != nullptr) grace_->Add(epoch_, 1);
    }
    Token(Token&& other) noexcept
        : grace_(std::exchange(other.grace_, nullptr)), epoch_(other.epoch_) {}
    Token& operator=(Token other) noexcept {
      std::swap(grace_, other.grace_);
      std::swap(epoch_, other.epoch_);
      return *this;
    }
    ~Token() {
      if (grace_ != nullptr) grace_->Add(epoch_, -1);
    }

   private:
    friend FetchGrace;
    Token(FetchGrace* grace, Epoch epoch) : grace_(grace), epoch_(epoch) {}

    FetchGrace* grace_ = nullptr;
    Epoch epoch_ = 0;
  };

  Token Hold() {
    MutexLock lock(mu_);
    ++held_.back();
    return {this, first_ + held_.size() - 1};
  }

  // A grace begins: it has passed once every token that is held now is gone.
  Epoch Begin() {
    MutexLock lock(mu_);
    held_.push_back(0);
    const Epoch epoch = first_ + held_.size() - 2;
    Trim();
    return epoch;
  }
  bool HasPassed(Epoch epoch) const {
    MutexLock lock(mu_);
    return epoch < first_;
  }

 private:
  void Add(Epoch epoch, int n) {
    MutexLock lock(mu_);
    held_[epoch - first_] += n;
    Trim();
  }
  void Trim() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    while (held_.size() > 1 && held_.front() == 0) {
      held_.pop_front();
      ++first_;
    }
  }

  mutable Mutex mu_;
  Epoch first_ ABSL_GUARDED_BY(mu_) = 0;
  std::deque<int64_t> held_ ABSL_GUARDED_BY(mu_) = {0};  // tokens of each epoch from first_ on
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_EVICT_FETCH_GRACE_H_
