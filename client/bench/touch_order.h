// SPDX-License-Identifier: Apache-2.0
//
// In which order a program touches its pages. Pure functions: whoever asks for the same gets the
// same, so that the floor is measured with the very touches of the program.
#ifndef FAULTLINE_CLIENT_BENCH_TOUCH_ORDER_H_
#define FAULTLINE_CLIENT_BENCH_TOUCH_ORDER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace faultline::bench {

enum class TouchOrder {
  kRandom,  // every page once
  kSequential,
  kStride,  // every kStridePages-th page, once
  kZipf,    // as many touches as there are pages; few pages get most of them
};

inline constexpr uint64_t kStridePages = 7;
inline constexpr double kZipfExponent = 0.99;

// The name that ParseTouchOrder reads: "random", "seq", "stride", "zipf".
const char* TouchOrderName(TouchOrder order);
std::optional<TouchOrder> ParseTouchOrder(const std::string& name);

// Page numbers below `pages`, at most `limit` of them (0: no limit).
std::vector<uint64_t> MakeTouches(TouchOrder order, uint64_t pages, uint64_t limit, uint64_t seed);

// Numbers below `n`, of which 0 is the most frequent: the probability of number k is in proportion
// to 1 / (k + 1)^exponent. Immutable.
class ZipfDistribution {
 public:
  // REQUIRES: n > 0.
  ZipfDistribution(uint64_t n, double exponent);

  // The number at `point`, which is uniform in [0, 1).
  uint64_t operator()(double point) const;

 private:
  std::vector<double> cumulative_;
};

// `count` numbers of that distribution.
std::vector<uint64_t> ZipfNumbers(uint64_t n, double exponent, uint64_t count, uint64_t seed);

uint64_t DistinctPages(std::vector<uint64_t> touches);

}  // namespace faultline::bench

#endif  // FAULTLINE_CLIENT_BENCH_TOUCH_ORDER_H_
