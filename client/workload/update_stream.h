// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_WORKLOAD_UPDATE_STREAM_H_
#define FAULTLINE_CLIENT_WORKLOAD_UPDATE_STREAM_H_

#include <algorithm>
#include <cstdint>
#include <functional>
#include <vector>

#include "client/churn/random.h"

namespace faultline::workload {

// One operation of a workload of random accesses.
struct Access {
  uint64_t target = 0;  // a number below some n
  bool updates = false;
};

// The operations of such a workload, each computed from its number: whoever wants to know what must
// have happened goes through them once more. A plain value.
class UpdateStream {
 public:
  // `choose` turns 64 random bits into a target.
  UpdateStream(uint64_t operations, uint64_t seed, double update_share,
               std::function<uint64_t(uint64_t)> choose)
      : operations_(operations),
        key_(churn::Mix(seed + 0x757064617465)),
        update_share_(static_cast<uint64_t>(update_share * kOne)),
        choose_(std::move(choose)) {}

  uint64_t operations() const { return operations_; }
  Access At(uint64_t number) const {
    const uint64_t bits = churn::Mix(number + key_);
    return {choose_(bits), (churn::Mix(bits + key_) >> 32) < update_share_};
  }

  // The sum, over all updates, of Weight(target): every lost or doubled update shows in it.
  uint64_t WeightOfUpdates() const {
    uint64_t sum = 0;
    for (uint64_t i = 0; i < operations_; ++i) {
      const Access access = At(i);
      if (access.updates) sum += Weight(access.target);
    }
    return sum;
  }
  static uint64_t Weight(uint64_t target) { return churn::Mix(target + 1) | 1; }

  // Calls check(target, its updates) for all targets below `targets` in order, until one call
  // returns false. Takes a pass over the operations for every few million targets.
  template <typename Check>
  void CountUpdates(uint64_t targets, Check check) const {
    std::vector<uint32_t> counts;
    for (uint64_t first = 0; first < targets; first += kCountedAtOnce) {
      counts.assign(std::min(kCountedAtOnce, targets - first), 0);
      for (uint64_t i = 0; i < operations_; ++i) {
        const Access access = At(i);
        if (access.updates && access.target - first < counts.size())
          ++counts[access.target - first];
      }
      for (uint64_t i = 0; i < counts.size(); ++i) {
        if (!check(first + i, counts[i])) return;
      }
    }
  }

 private:
  static constexpr uint64_t kOne = uint64_t{1} << 32;
  static constexpr uint64_t kCountedAtOnce = uint64_t{4} << 20;

  uint64_t operations_, key_, update_share_;
  std::function<uint64_t(uint64_t)> choose_;
};

}  // namespace faultline::workload

#endif  // FAULTLINE_CLIENT_WORKLOAD_UPDATE_STREAM_H_
