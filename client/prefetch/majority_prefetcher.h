// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_PREFETCH_MAJORITY_PREFETCHER_H_
#define FAULTLINE_CLIENT_PREFETCH_MAJORITY_PREFETCHER_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "client/prefetch/prefetcher.h"
#include "client/prefetch/stride_walk.h"

namespace faultline {

// Follows the distance that most of the last touches share, however many others are between them
// (Maruf and Chowdhury, "Effectively Prefetching Remote Memory with Leap", ATC 2020, section 4: a
// majority vote over windows of the history that double until one has a majority).
class MajorityPrefetcher final : public Prefetcher {
 public:
  void OnTouch(PageIndex page, TouchKind kind, std::vector<Guess>* ahead) override;
  void OnWaste(PageIndex page) override;

  // The pages up to `last` were touched unseen, one after the other.
  void NoteRun(PageIndex last);
  // Whether somebody walks, and `page` is one that was guessed for that, or would be next.
  bool Covers(PageIndex page) const { return walk_ && walk_->Covers(page); }

 private:
  static constexpr size_t kHistory = 32;
  static constexpr size_t kFirstVote = 4;
  static constexpr uint64_t kMaxWindow = 32;

  void Note(int64_t distance);
  // The distance back, `ago` touches before the last.
  int64_t Distance(size_t ago) const { return history_[(at_ + kHistory - 1 - ago) % kHistory]; }
  // What more than half of the last `votes` distances are.
  std::optional<int64_t> MajorityOf(size_t votes) const;
  std::optional<int64_t> Trend() const;

  std::array<int64_t, kHistory> history_{};
  size_t at_ = 0, noted_ = 0;
  std::optional<PageIndex> last_;
  std::optional<StrideWalk> walk_;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_PREFETCH_MAJORITY_PREFETCHER_H_
