// SPDX-License-Identifier: Apache-2.0
//
// bfs: a breadth-first search through a graph in compressed sparse rows, level by level. All of it
// is in one block of memory: offsets | levels | neighbours | queue.
//
// The levels are proven to be right, not computed once more: the graph is what its seed makes it;
// no edge leads from a reached vertex to one that is not reached or more than one level further;
// and to each reached vertex but the root leads an edge from the level before. Then each level is
// the length of a shortest path.
#include <algorithm>
#include <atomic>
#include <bit>
#include <vector>

#include "client/workload/graph.h"
#include "client/workload/work_context.h"

namespace faultline::workload {
namespace {

constexpr uint32_t kUnreached = ~uint32_t{0};
// What Graph500 has.
constexpr uint64_t kEdgesPerVertex = 16;

uint64_t VerticesThatFit(Graph::Kind kind, uint64_t bytes) {
  constexpr uint64_t kBytesPerVertex =
      sizeof(uint64_t) + 2 * sizeof(uint32_t) + kEdgesPerVertex * sizeof(uint32_t);
  const uint64_t vertices = std::min(bytes / kBytesPerVertex, uint64_t{1} << 31);
  return kind == Graph::Kind::kUniform ? vertices : std::bit_floor(vertices);
}

class BfsWorkload final : public Workload {
 public:
  explicit BfsWorkload(WorkContext* context);

  uint64_t Rounds() const override { return *context_.options().passes; }
  void Prepare(uint64_t round) override;
  uint64_t Work() override;
  uint64_t Verify() override;
  std::span<std::byte> Content() const override {
    return context_.memory().first(static_cast<size_t>(
        reinterpret_cast<std::byte*>(neighbours_ + edges_) - context_.memory().data()));
  }

 private:
  void BuildGraph();
  void ChooseRoot(uint64_t round);
  // Of the vertices [begin, end) of the queue, which are of this level: those that they lead to.
  void VisitLevel(uint64_t begin, uint64_t end, uint32_t level);
  // The vertex at this place of the queue. False where the memory is wrong, which is reported.
  bool VisitVertex(unsigned thread, const uint32_t* queued, uint32_t level);
  // False as above. Marks the vertices that this one leads to at the next level.
  bool CheckVertex(uint64_t vertex, std::vector<bool>* led_to);
  void ReportWrong(const void* at, uint64_t found, uint64_t expected, const std::string& what);

  // Of the graph in memory, where the edges of `vertex` begin at `first`.
  Graph::Row RowAt(uint64_t vertex, uint64_t first) const {
    Graph::Row row = graph_.RowOf(vertex);
    row.degree = std::min(row.degree, capacity_ - first);
    return row;
  }
  std::atomic_ref<uint32_t> Level(uint64_t vertex) const {
    return std::atomic_ref<uint32_t>(levels_[vertex]);
  }

  WorkContext& context_;
  Graph::Kind kind_;
  uint64_t vertices_;
  uint64_t* offsets_;     // vertices_ + 1; of its first edge
  uint32_t* levels_;      // vertices_
  uint32_t* neighbours_;  // capacity_, of which edges_ are used
  uint32_t* queue_;       // vertices_
  uint64_t capacity_, edges_ = 0;
  Graph graph_;
  uint32_t root_ = 0;
  std::atomic<uint64_t> queued_ = 0, traversed_ = 0;
};

BfsWorkload::BfsWorkload(WorkContext* context)
    : context_(*context),
      kind_(context->options().graph == "uniform" ? Graph::Kind::kUniform
                                                  : Graph::Kind::kKronecker),
      vertices_(VerticesThatFit(kind_, context->memory().size())),
      offsets_(context->words()),
      levels_(reinterpret_cast<uint32_t*>(offsets_ + vertices_ + 1)),
      neighbours_(levels_ + vertices_),
      queue_(reinterpret_cast<uint32_t*>(context->memory().data() + context->memory().size()) -
             vertices_),
      capacity_(static_cast<uint64_t>(queue_ - neighbours_)),
      // Their number is random, a little below or above; what does not fit is left out.
      graph_(kind_, vertices_, capacity_, context->options().seed) {}

void BfsWorkload::Prepare(uint64_t round) {
  if (round == 0) BuildGraph();
  std::fill(levels_, levels_ + vertices_, kUnreached);
  ChooseRoot(round);
}

void BfsWorkload::BuildGraph() {
  for (uint64_t vertex = 0; vertex < vertices_; ++vertex) {
    const Graph::Row row = RowAt(vertex, edges_);
    context_.NoteAccess(0, &offsets_[vertex], AccessKind::kWrite);
    offsets_[vertex] = edges_;
    for (uint64_t edge = 0; edge < row.degree; ++edge) {
      context_.NoteAccess(0, &neighbours_[edges_], AccessKind::kWrite);
      neighbours_[edges_++] = graph_.Neighbour(row, edge);
    }
  }
  offsets_[vertices_] = edges_;
}

// One that has edges, and so leads to most of the graph.
void BfsWorkload::ChooseRoot(uint64_t round) {
  const uint64_t enough = std::max<uint64_t>(edges_ / vertices_, 1);
  churn::Random random({context_.options().seed, round});
  do {
    root_ = static_cast<uint32_t>(random.Below(vertices_));
  } while (graph_.RowOf(root_).degree < enough || offsets_[root_] == edges_);
}

uint64_t BfsWorkload::Work() {
  queue_[0] = root_;
  levels_[root_] = 0;
  queued_ = 1;
  traversed_ = 0;
  uint64_t begin = 0;
  for (uint32_t level = 0; begin < queued_ && !context_.wrong(); ++level) {
    const uint64_t end = queued_;
    VisitLevel(begin, end, level);
    begin = end;
  }
  return traversed_;
}

void BfsWorkload::VisitLevel(uint64_t begin, uint64_t end, uint32_t level) {
  // Enough that threads seldom meet at the counter, and few enough that none is left alone with
  // much.
  constexpr uint64_t kAtOnce = 64;
  std::atomic<uint64_t> next = begin;
  context_.RunThreads([&](unsigned thread) {
    for (uint64_t first; (first = next.fetch_add(kAtOnce)) < end;) {
      for (uint64_t i = first; i < std::min(end, first + kAtOnce); ++i) {
        context_.NoteAccess(thread, &queue_[i], AccessKind::kRead);
        if (!VisitVertex(thread, &queue_[i], level)) return;
      }
      if (context_.wrong()) return;
    }
  });
}

bool BfsWorkload::VisitVertex(unsigned thread, const uint32_t* queued, uint32_t level) {
  const uint32_t vertex = *queued;
  if (vertex >= vertices_) {
    ReportWrong(queued, vertex, vertices_ - 1, "the queue has a vertex that does not exist");
    return false;
  }
  const uint64_t begin = offsets_[vertex], end = offsets_[vertex + 1];
  context_.NoteAccess(thread, &offsets_[vertex], AccessKind::kRead);
  if (begin > end || end > edges_) {
    ReportWrong(&offsets_[vertex], begin, end, "an offset of the graph is out of range");
    return false;
  }
  for (uint64_t edge = begin; edge < end; ++edge) {
    const uint32_t to = neighbours_[edge];
    context_.NoteAccess(thread, &neighbours_[edge], AccessKind::kRead);
    if (to >= vertices_) {
      ReportWrong(&neighbours_[edge], to, graph_.Neighbour(graph_.RowOf(vertex), edge - begin),
                  "a neighbour does not exist");
      return false;
    }
    context_.NoteAccess(thread, &levels_[to], AccessKind::kRead);
    uint32_t seen = Level(to).load(std::memory_order_relaxed);
    if (seen != kUnreached ||
        !Level(to).compare_exchange_strong(seen, level + 1, std::memory_order_relaxed)) {
      continue;
    }
    context_.NoteAccess(thread, &levels_[to], AccessKind::kWrite);
    const uint64_t place = queued_.fetch_add(1, std::memory_order_relaxed);
    if (place >= vertices_) {
      ReportWrong(&levels_[to], seen, level, "more vertices were reached than there are");
      return false;
    }
    context_.NoteAccess(thread, &queue_[place], AccessKind::kWrite);
    queue_[place] = to;
  }
  traversed_.fetch_add(end - begin, std::memory_order_relaxed);
  return true;
}

void BfsWorkload::ReportWrong(const void* at, uint64_t found, uint64_t expected,
                              const std::string& what) {
  const auto offset = static_cast<const std::byte*>(at) - context_.memory().data();
  context_.ReportWrong(
      what + "; " +
      DescribeWord(static_cast<uint64_t>(offset) / sizeof(uint64_t), found, expected));
}

bool BfsWorkload::CheckVertex(uint64_t vertex, std::vector<bool>* led_to) {
  const uint64_t begin = offsets_[vertex];
  const Graph::Row row = RowAt(vertex, begin);
  const std::string name = "vertex " + std::to_string(vertex);
  if (offsets_[vertex + 1] != begin + row.degree) {
    ReportWrong(&offsets_[vertex + 1], offsets_[vertex + 1], begin + row.degree,
                "the edges of " + name + " end elsewhere");
    return false;
  }
  constexpr uint64_t kAhead = 16;
  const uint32_t level = levels_[vertex];
  for (uint64_t edge = 0; edge < row.degree; ++edge) {
    const uint32_t to = graph_.Neighbour(row, edge);
    const uint32_t* found = &neighbours_[begin + edge];
    if (*found != to) {
      ReportWrong(found, *found, to, "edge " + std::to_string(edge) + " of " + name);
      return false;
    }
    if (level == kUnreached) continue;
    // What comes between two of these accesses is too long for the processor to overlap them.
    __builtin_prefetch(&levels_[neighbours_[std::min(begin + edge + kAhead, edges_ - 1)]]);
    if (levels_[to] > level + 1) {
      ReportWrong(&levels_[to], levels_[to], level + 1,
                  "the level of vertex " + std::to_string(to) + ", to which leads " + name);
      return false;
    }
    if (levels_[to] == level + 1) (*led_to)[to] = true;
  }
  return true;
}

uint64_t BfsWorkload::Verify() {
  std::vector<bool> led_to(vertices_, false);
  if (offsets_[0] != 0) {
    ReportWrong(offsets_, offsets_[0], 0, "the edges of vertex 0 begin elsewhere");
    return 0;
  }
  for (uint64_t vertex = 0; vertex < vertices_; ++vertex) {
    if (!CheckVertex(vertex, &led_to)) return 0;
  }
  led_to[root_] = levels_[root_] == 0;
  uint64_t checksum = 0;
  for (uint64_t vertex = 0; vertex < vertices_; ++vertex) {
    if (levels_[vertex] != kUnreached && !led_to[vertex]) {
      ReportWrong(&levels_[vertex], levels_[vertex], kUnreached,
                  "no edge leads to vertex " + std::to_string(vertex) + " from the level before");
      return 0;
    }
    checksum = std::rotl(checksum, 7) + levels_[vertex] + offsets_[vertex + 1];
  }
  return checksum;
}

}  // namespace

std::unique_ptr<Workload> MakeBfsWorkload(WorkContext* context) {
  return std::make_unique<BfsWorkload>(context);
}

}  // namespace faultline::workload
