// SPDX-License-Identifier: Apache-2.0
#include "client/workload/graph.h"

#include <bit>
#include <cmath>

namespace faultline::workload {
namespace {

using Multiplied = unsigned __int128;

// The chance that a bit of an edge's source is 1, and, given that bit, that of its target.
constexpr double kSourceOne = 0.19 + 0.05;
// In 256ths: 0.19 / 0.76 and 0.05 / 0.24.
constexpr unsigned kTargetOneAfterZero = 64, kTargetOneAfterOne = 53;

// 64 bits at once, each of which is 1 with a chance of `after_zero` / 256 or, where `source` has a
// 1 there, `after_one` / 256. From the lowest binary digit of the chance to the highest, each
// halves what was there and adds a half where it is 1.
uint64_t TargetBits(uint64_t source, uint64_t random) {
  uint64_t zero = 0, one = 0;
  for (unsigned digit = 0; digit < 8; ++digit) {
    const uint64_t bits = churn::Mix(random += 0x9e3779b97f4a7c15);
    zero = (kTargetOneAfterZero >> digit & 1) != 0 ? bits | zero : bits & zero;
    one = (kTargetOneAfterOne >> digit & 1) != 0 ? bits | one : bits & one;
  }
  return (zero & ~source) | (one & source);
}

}  // namespace

Graph::Graph(Kind kind, uint64_t vertices, uint64_t edges, uint64_t seed)
    : kind_(kind),
      vertices_(vertices),
      key_(churn::Mix(seed + 0x6772617068)),
      renumbered_(vertices, seed) {
  if (kind == Kind::kUniform) {
    expected_degree_ = {static_cast<double>(edges) / static_cast<double>(vertices)};
    return;
  }
  const int scale = std::countr_zero(vertices);
  for (int ones = 0; ones <= scale; ++ones) {
    expected_degree_.push_back(static_cast<double>(edges) * std::pow(kSourceOne, ones) *
                               std::pow(1 - kSourceOne, scale - ones));
  }
}

Graph::Row Graph::RowOf(uint64_t vertex) const {
  Row row;
  row.key = churn::Mix(vertex + key_);
  row.number = kind_ == Kind::kUniform ? 0 : renumbered_.IndexOf(vertex);
  const double expected = expected_degree_[static_cast<size_t>(std::popcount(row.number))];
  const double chance = static_cast<double>(churn::Mix(~row.key) >> 11) * 0x1p-53;
  row.degree = static_cast<uint64_t>(expected + chance);
  return row;
}

uint32_t Graph::Neighbour(const Row& row, uint64_t edge) const {
  const uint64_t random = churn::Mix(edge + row.key);
  if (kind_ == Kind::kUniform) {
    return static_cast<uint32_t>(Multiplied{random} * vertices_ >> 64);
  }
  return static_cast<uint32_t>(renumbered_.At(TargetBits(row.number, random) & (vertices_ - 1)));
}

}  // namespace faultline::workload
