// SPDX-License-Identifier: Apache-2.0
#include "client/bench/touch_order.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <numeric>
#include <random>

namespace faultline::bench {
namespace {

constexpr struct {
  TouchOrder order;
  const char* name;
} kNames[] = {{TouchOrder::kRandom, "random"},
              {TouchOrder::kSequential, "seq"},
              {TouchOrder::kStride, "stride"},
              {TouchOrder::kZipf, "zipf"}};

std::vector<uint64_t> Shuffled(uint64_t pages, uint64_t seed) {
  std::vector<uint64_t> all(pages);
  std::iota(all.begin(), all.end(), 0);
  std::shuffle(all.begin(), all.end(), std::mt19937_64(seed));
  return all;
}

}  // namespace

const char* TouchOrderName(TouchOrder order) {
  for (const auto& known : kNames) {
    if (known.order == order) return known.name;
  }
  return "";
}

std::optional<TouchOrder> ParseTouchOrder(const std::string& name) {
  for (const auto& known : kNames) {
    if (known.name == name) return known.order;
  }
  return std::nullopt;
}

ZipfDistribution::ZipfDistribution(uint64_t n, double exponent) : cumulative_(n) {
  double sum = 0;
  for (uint64_t k = 0; k < n; ++k) {
    cumulative_[k] = sum += std::pow(static_cast<double>(k + 1), -exponent);
  }
}

uint64_t ZipfDistribution::operator()(double point) const {
  const auto at =
      std::upper_bound(cumulative_.begin(), cumulative_.end(), point * cumulative_.back());
  return std::min<uint64_t>(static_cast<uint64_t>(std::distance(cumulative_.begin(), at)),
                            cumulative_.size() - 1);
}

std::vector<uint64_t> ZipfNumbers(uint64_t n, double exponent, uint64_t count, uint64_t seed) {
  const ZipfDistribution zipf(n, exponent);
  std::mt19937_64 random(seed);
  std::uniform_real_distribution<double> point(0, 1);
  std::vector<uint64_t> numbers(count);
  for (uint64_t& number : numbers) number = zipf(point(random));
  return numbers;
}

std::vector<uint64_t> MakeTouches(TouchOrder order, uint64_t pages, uint64_t limit, uint64_t seed) {
  if (limit == 0) limit = pages;
  std::vector<uint64_t> touches;
  switch (order) {
    case TouchOrder::kRandom:
      touches = Shuffled(pages, seed);
      break;
    case TouchOrder::kSequential:
      touches.resize(pages);
      std::iota(touches.begin(), touches.end(), 0);
      break;
    case TouchOrder::kStride:
      for (uint64_t page = 0; page < pages; page += kStridePages) touches.push_back(page);
      break;
    case TouchOrder::kZipf: {
      touches = ZipfNumbers(pages, kZipfExponent, std::min(limit, pages), seed);
      // The hot pages are not next to each other.
      const std::vector<uint64_t> place = Shuffled(pages, seed + 1);
      for (uint64_t& page : touches) page = place[page];
      break;
    }
  }
  if (touches.size() > limit) touches.resize(limit);
  return touches;
}

uint64_t DistinctPages(std::vector<uint64_t> touches) {
  std::sort(touches.begin(), touches.end());
  return static_cast<uint64_t>(
      std::distance(touches.begin(), std::unique(touches.begin(), touches.end())));
}

}  // namespace faultline::bench
