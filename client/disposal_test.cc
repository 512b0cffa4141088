// SPDX-License-Identifier: Apache-2.0
#include "client/disposal.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <memory>
#include <optional>
#include <thread>

namespace faultline {
namespace {

// Notes who destroys it, and is destroyed no sooner than it may be.
class Slow {
 public:
  Slow(std::shared_future<void> may_end, std::atomic<std::thread::id>* destroyer)
      : may_end_(std::move(may_end)), destroyer_(destroyer) {}
  ~Slow() {
    may_end_.wait();
    *destroyer_ = std::this_thread::get_id();
  }

 private:
  const std::shared_future<void> may_end_;
  std::atomic<std::thread::id>* const destroyer_;
};

class DisposalTest : public testing::Test {
 protected:
  std::shared_ptr<Slow> Make(size_t i) { return std::make_shared<Slow>(may_end_, &destroyers_[i]); }
  std::thread::id destroyer(size_t i) const { return destroyers_[i]; }

  const std::thread::id none_;
  std::promise<void> end_;
  const std::shared_future<void> may_end_ = end_.get_future().share();
  std::atomic<std::thread::id> destroyers_[3] = {};
};

TEST_F(DisposalTest, WhoeverLetsGoDoesNotWait) {
  std::optional<Disposal> disposal(std::in_place);
  std::shared_ptr<Slow> first = disposal->Later(Make(0));
  std::shared_ptr<Slow> copy = first;
  first.reset();
  copy.reset();
  EXPECT_EQ(destroyer(0), none_);
  end_.set_value();
  disposal.reset();
  EXPECT_NE(destroyer(0), none_);
  EXPECT_NE(destroyer(0), std::this_thread::get_id());
}

TEST_F(DisposalTest, RoomIsOnceThoseBeforeAreDestroyed) {
  Disposal disposal;
  for (size_t i = 0; i < 3; ++i) disposal.Later(Make(i)).reset();
  disposal.WaitForRoom(4, SteadyClock::time_point::max());
  disposal.WaitForRoom(3, SteadyClock::now() + std::chrono::milliseconds(20));
  EXPECT_EQ(destroyer(0), none_);
  end_.set_value();
  disposal.WaitForRoom(1, SteadyClock::time_point::max());
  for (size_t i = 0; i < 3; ++i) EXPECT_NE(destroyer(i), none_) << i;
}

TEST_F(DisposalTest, WhatOutlivesItItsOwnerDestroys) {
  end_.set_value();
  std::shared_ptr<Slow> late;
  {
    Disposal disposal;
    late = disposal.Later(Make(0));
  }
  EXPECT_EQ(destroyer(0), none_);
  late.reset();
  EXPECT_EQ(destroyer(0), std::this_thread::get_id());
}

}  // namespace
}  // namespace faultline
