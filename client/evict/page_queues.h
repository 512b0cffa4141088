// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_EVICT_PAGE_QUEUES_H_
#define FAULTLINE_CLIENT_EVICT_PAGE_QUEUES_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "proto/page.h"

namespace faultline {

// Pages in a few queues, each page in at most one, found by their number: what eviction policies
// are made of. Every call takes constant time. A page takes 16 bytes and its place in the index
// (5 to 11); memory that was needed once is used again, not given back, so that nothing is
// allocated while the number of pages stays below its highest. Not thread-safe.
class PageQueues {
 public:
  static constexpr unsigned kMaxQueues = 4;

  // A page that is here. Valid until it is removed.
  class Entry {
   private:
    friend class PageQueues;
    explicit Entry(uint32_t node) : node_(node) {}
    uint32_t node_;
  };

  PageQueues();
  PageQueues(const PageQueues&) = delete;
  PageQueues& operator=(const PageQueues&) = delete;

  std::optional<Entry> Find(PageIndex page) const;
  // The page that has been in `queue` for longest.
  std::optional<Entry> Front(unsigned queue) const;

  // REQUIRES: `page` is not here. It is not marked.
  Entry Push(PageIndex page, unsigned queue);
  // To the end of `queue`, the same or another one. The mark stays.
  void Move(Entry entry, unsigned queue);
  void Remove(Entry entry);

  PageIndex page(Entry entry) const { return PageIndex(node(entry.node_).page); }
  unsigned queue(Entry entry) const { return node(entry.node_).queue; }
  bool marked(Entry entry) const { return node(entry.node_).marked != 0; }
  void Mark(Entry entry, bool marked) { node(entry.node_).marked = marked ? 1 : 0; }

  PageCount size(unsigned queue) const { return PageCount(sizes_[queue]); }
  // Of all queues.
  PageCount size() const { return PageCount(used_); }

 private:
  struct Node {
    uint64_t page : 40;
    uint64_t queue : 8;
    uint64_t marked : 8;
    uint32_t previous, next;  // in a ring with the head of its queue; next also in the free list
  };
  static_assert(sizeof(Node) == 16);
  static_assert(kMaxVolumePages <= uint64_t{1} << 40);

  // Nodes come in blocks, so that none ever moves. The first nodes are the heads of the queues.
  static constexpr uint32_t kBlockNodes = 4096;
  static constexpr uint32_t kNone = 0;  // in the index and in the free list: a head is neither

  Node& node(uint32_t i) { return blocks_[i / kBlockNodes][i % kBlockNodes]; }
  const Node& node(uint32_t i) const { return blocks_[i / kBlockNodes][i % kBlockNodes]; }

  uint32_t NewNode();
  void Link(uint32_t i, unsigned queue);
  void Unlink(uint32_t i);

  size_t Home(uint64_t page) const;
  // The place in the index of `page`, or the free one where it belongs.
  size_t Slot(uint64_t page) const;
  void EraseFromIndex(uint64_t page);
  void GrowIndex();

  std::vector<std::unique_ptr<Node[]>> blocks_;
  uint32_t made_ = 0;      // nodes that were ever used
  uint32_t free_ = kNone;  // the first of those that are not in use
  uint64_t used_ = 0;
  std::array<uint64_t, kMaxQueues> sizes_ = {};
  // Nodes by page: open addressing with linear probing, and without tombstones, so that it never
  // has to be cleaned up. Its size is a power of two.
  std::vector<uint32_t> index_;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_EVICT_PAGE_QUEUES_H_
