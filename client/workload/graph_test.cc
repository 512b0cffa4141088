// SPDX-License-Identifier: Apache-2.0
#include "client/workload/graph.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "client/workload/counter.h"
#include "client/workload/update_stream.h"

namespace faultline::workload {
namespace {

TEST(Permutation, IsOneInBothDirections) {
  for (const uint64_t n : {1u, 2u, 3u, 4u, 5u, 17u, 256u, 1000u, 4097u}) {
    const Permutation order(n, 7);
    std::set<uint64_t> seen;
    for (uint64_t x = 0; x < n; ++x) {
      const uint64_t y = order.At(x);
      ASSERT_LT(y, n);
      EXPECT_EQ(order.IndexOf(y), x);
      seen.insert(y);
    }
    EXPECT_EQ(seen.size(), n);
  }
  const Permutation one(1000, 1), other(1000, 2);
  uint64_t same = 0, stays = 0;
  for (uint64_t x = 0; x < 1000; ++x) {
    same += one.At(x) == other.At(x);
    stays += one.At(x) == x;
  }
  EXPECT_LT(same, 10u);
  EXPECT_LT(stays, 10u);
}

constexpr uint64_t kVertices = 1 << 12, kEdges = 16 * kVertices;

struct Degrees {
  uint64_t sum = 0, greatest = 0;
  std::vector<double> incoming = std::vector<double>(kVertices);
};

Degrees DegreesOf(const Graph& graph) {
  Degrees degrees;
  for (uint64_t vertex = 0; vertex < kVertices; ++vertex) {
    const Graph::Row row = graph.RowOf(vertex);
    degrees.sum += row.degree;
    degrees.greatest = std::max(degrees.greatest, row.degree);
    for (uint64_t edge = 0; edge < row.degree; ++edge) {
      const uint32_t to = graph.Neighbour(row, edge);
      EXPECT_LT(to, kVertices);
      ++degrees.incoming[to];
    }
  }
  std::sort(degrees.incoming.rbegin(), degrees.incoming.rend());
  return degrees;
}

TEST(Graph, AKroneckerGraphHasAFewVerticesOfMostEdges) {
  const Degrees degrees = DegreesOf(Graph(Graph::Kind::kKronecker, kVertices, kEdges, 1));
  EXPECT_NEAR(static_cast<double>(degrees.sum), kEdges, 0.02 * kEdges);
  // What the law says of the vertex that is zeros only: of all edges, 0.76^12 begin there, and as
  // many end there.
  const double most = kEdges * std::pow(0.76, 12);
  EXPECT_NEAR(static_cast<double>(degrees.greatest), most, 1);
  EXPECT_NEAR(degrees.incoming[0], most, 6 * std::sqrt(most));
  // The next twelve have one 1.
  EXPECT_NEAR(degrees.incoming[6], most * 0.24 / 0.76, 6 * std::sqrt(most));
}

TEST(Graph, AUniformGraphTreatsAllVerticesAlike) {
  const Degrees degrees = DegreesOf(Graph(Graph::Kind::kUniform, kVertices, kEdges, 1));
  EXPECT_NEAR(static_cast<double>(degrees.sum), kEdges, 0.02 * kEdges);
  EXPECT_LE(degrees.greatest, 17u);
  EXPECT_LT(degrees.incoming.front(), 16 + 6 * 4);
  EXPECT_GE(degrees.incoming[kVertices / 2], 14);
}

TEST(Counter, TellsHowManyUpdatesItHasHad) {
  uint64_t word = 12345;
  Counter counter(&word, 12345);
  EXPECT_EQ(counter.Count(), 0u);
  for (int i = 0; i < 1000; ++i) counter.Update();
  EXPECT_EQ(counter.Count(), 1000u);
  word ^= 1;
  EXPECT_GT(counter.Count(), uint64_t{1} << 32);
}

TEST(UpdateStream, CountsWhatItsAccessesDo) {
  constexpr uint64_t kTargets = 100;
  const UpdateStream stream(10'000, 1, 0.3, [](uint64_t bits) { return bits % kTargets; });
  std::vector<uint64_t> counts(kTargets);
  uint64_t weight = 0, updates = 0;
  for (uint64_t i = 0; i < stream.operations(); ++i) {
    const Access access = stream.At(i);
    counts[access.target] += access.updates;
    updates += access.updates;
    weight += access.updates ? UpdateStream::Weight(access.target) : 0;
  }
  EXPECT_EQ(stream.WeightOfUpdates(), weight);
  EXPECT_NEAR(static_cast<double>(updates), 3000, 6 * std::sqrt(3000 * 0.7));
  std::vector<uint64_t> told;
  stream.CountUpdates(kTargets, [&](uint64_t target, uint64_t count) {
    EXPECT_EQ(target, told.size());
    told.push_back(count);
    return told.size() < 50;
  });
  EXPECT_EQ(told, std::vector<uint64_t>(counts.begin(), counts.begin() + 50));
}

}  // namespace
}  // namespace faultline::workload
