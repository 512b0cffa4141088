// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_CHURN_RANDOM_H_
#define FAULTLINE_CLIENT_CHURN_RANDOM_H_

#include <cstdint>
#include <initializer_list>

namespace faultline::churn {

// A bijection of 64-bit numbers that spreads every bit over all others (Stafford's mix 13, the
// finaliser of SplitMix64).
constexpr uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

// Its inverse.
constexpr uint64_t Unmix(uint64_t x) {
  x = (x ^ (x >> 31) ^ (x >> 62)) * 0x319642b2d24d8ec3;
  x = (x ^ (x >> 27) ^ (x >> 54)) * 0x96de1b173f119089;
  return x ^ (x >> 30) ^ (x >> 60);
}

// SplitMix64: a stream of numbers that its seeds decide. A plain value that allocates nothing, so
// that a forked child may use it.
class Random {
 public:
  explicit Random(std::initializer_list<uint64_t> seeds) {
    for (const uint64_t seed : seeds) state_ = Mix(state_ + kStep) ^ Mix(seed + kStep);
  }

  uint64_t Next() { return Mix(state_ += kStep); }
  // One of 0 to n - 1. REQUIRES: n > 0.
  uint64_t Below(uint64_t n) { return Next() % n; }
  // One of `low` to `high`, both included.
  uint64_t Between(uint64_t low, uint64_t high) { return low + Below(high - low + 1); }
  // True in one of n cases.
  bool OneIn(uint64_t n) { return Below(n) == 0; }

 private:
  static constexpr uint64_t kStep = 0x9e3779b97f4a7c15;
  uint64_t state_ = 0;
};

}  // namespace faultline::churn

#endif  // FAULTLINE_CLIENT_CHURN_RANDOM_H_
