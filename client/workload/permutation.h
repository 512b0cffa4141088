// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_WORKLOAD_PERMUTATION_H_
#define FAULTLINE_CLIENT_WORKLOAD_PERMUTATION_H_

#include <algorithm>
#include <bit>
#include <cstdint>

#include "client/churn/random.h"

namespace faultline::workload {

// A random order of the numbers below n that takes no memory: any place of it is computed, in both
// directions. (A Feistel network over the next power of two, walked until it is back below n.) A
// plain value.
class Permutation {
 public:
  // REQUIRES: n > 0.
  Permutation(uint64_t n, uint64_t seed)
      : n_(n),
        bits_(std::max(2, static_cast<int>(std::bit_width(n - 1)))),
        low_bits_(bits_ / 2),
        key_(churn::Mix(seed ^ 0x7065726d75746174)) {}

  // REQUIRES: x < n.
  uint64_t At(uint64_t x) const {
    do {
      for (int round = 0; round < kRounds; ++round) x = Exchange(x, round);
    } while (x >= n_);
    return x;
  }
  // At(IndexOf(y)) == y.
  uint64_t IndexOf(uint64_t y) const {
    do {
      for (int round = kRounds; round-- > 0;) y = Exchange(y, round);
    } while (y >= n_);
    return y;
  }

 private:
  static constexpr int kRounds = 4;

  // One half is changed by what the other one is: its own inverse.
  uint64_t Exchange(uint64_t x, int round) const {
    const uint64_t low_mask = (uint64_t{1} << low_bits_) - 1;
    const uint64_t high_mask = ((uint64_t{1} << bits_) - 1) & ~low_mask;
    const uint64_t kept = round % 2 == 0 ? x & low_mask : x & high_mask;
    const uint64_t change = churn::Mix(kept + key_ + static_cast<uint64_t>(round));
    return x ^ (change & (round % 2 == 0 ? high_mask : low_mask));
  }

  uint64_t n_;
  int bits_, low_bits_;
  uint64_t key_;
};

}  // namespace faultline::workload

#endif  // FAULTLINE_CLIENT_WORKLOAD_PERMUTATION_H_
