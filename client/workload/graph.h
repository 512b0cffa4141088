// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_WORKLOAD_GRAPH_H_
#define FAULTLINE_CLIENT_WORKLOAD_GRAPH_H_

#include <cstdint>
#include <string>
#include <vector>

#include "client/workload/permutation.h"

namespace faultline::workload {

// A directed graph that is computed, not kept: the neighbours of any vertex follow from the seed,
// so that a copy of it in memory is written in order, from the first vertex to the last, and can be
// checked.
//
// "kronecker": the stochastic Kronecker graph of Graph500 (0.57, 0.19, 0.19, 0.05): few vertices
// have most of the edges. A vertex's number of edges is the expected one, rounded at random, and
// its neighbours are drawn as that graph draws them for it; the vertices are renumbered at random.
// "uniform": all vertices have about as many edges, to any others.
class Graph {
 public:
  enum class Kind { kKronecker, kUniform };

  // About `edges` edges. REQUIRES: vertices > 1, and a power of two where it is a Kronecker graph.
  Graph(Kind kind, uint64_t vertices, uint64_t edges, uint64_t seed);

  // The edges that lead away from a vertex.
  struct Row {
    uint64_t degree;
    uint64_t number;  // of the vertex, before it was renumbered
    uint64_t key;
  };
  Row RowOf(uint64_t vertex) const;
  // Where edge number `edge` leads to. REQUIRES: edge < row.degree.
  uint32_t Neighbour(const Row& row, uint64_t edge) const;

 private:
  Kind kind_;
  uint64_t vertices_, key_;
  // Of vertices whose first number has so many ones.
  std::vector<double> expected_degree_;
  Permutation renumbered_;
};

}  // namespace faultline::workload

#endif  // FAULTLINE_CLIENT_WORKLOAD_GRAPH_H_
