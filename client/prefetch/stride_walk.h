// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_PREFETCH_STRIDE_WALK_H_
#define FAULTLINE_CLIENT_PREFETCH_STRIDE_WALK_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "client/prefetch/prefetcher.h"

namespace faultline {

// A target that walks through its memory with some stride, and the windows of pages that are
// guessed ahead of it. What the policies have in common: they differ in how they find out that
// somebody walks.
//
// The first page of each window is staged: its touch, the only one of the window that is seen, has
// the next windows guessed while the rest of this one, which is mapped, is being used. The first
// window, of which it is not known yet whether it is any good, is staged as a whole.
//
// Pure. Not thread-safe.
class StrideWalk {
 public:
  // So many pages at most, so that the windows of one touch together stay within bounds.
  static constexpr uint64_t kMaxWindow = kMaxPrefetchWindow.raw() / 2;
  // Where the pages of a window are no neighbours, each is a guess of its own.
  static constexpr uint64_t kMaxScattered = kMaxGuesses / 2;

  // The target is at `page` and goes on by `stride` pages, which is not 0. Appends the first window
  // to `*ahead`; later ones grow up to `max_window` pages.
  StrideWalk(PageIndex page, int64_t stride, uint64_t max_window, std::vector<Guess>* ahead);

  int64_t stride() const { return stride_; }

  // Whether `page` is one that was guessed, or would be next.
  bool Covers(PageIndex page) const;
  // Whether a touch of that kind goes on with the walk: a miss behind the end was guessed and lost.
  bool Continues(PageIndex page, TouchKind kind) const;
  // The target has touched `page`, which is covered. Appends the windows that are due.
  void OnTouch(PageIndex page, std::vector<Guess>* ahead);
  // A page that is covered was dropped without a touch. False: the walk is over.
  [[nodiscard]] bool OnWaste();

 private:
  static constexpr uint64_t kFirstWindow = 4;
  // How far a thread may be behind another one that walks with it.
  static constexpr uint64_t kBehind = 32;
  // From windows of this size on, two are kept ahead: one that is there, and one on its way.
  static constexpr uint64_t kEstablished = 16;

  // Pages are counted in steps from where the walk was found: that page is 0.
  std::optional<uint64_t> StepOf(PageIndex page) const;
  PageIndex PageOf(uint64_t step) const;
  // The steps from `step` on that lie in any volume, but at most `limit`.
  uint64_t StepsLeft(uint64_t step, uint64_t limit) const;
  void AppendWindow(Placement rest, std::vector<Guess>* ahead);
  void Append(uint64_t step, uint64_t count, Placement placement, std::vector<Guess>* ahead) const;

  PageIndex origin_;
  int64_t stride_;
  uint64_t max_window_;
  uint64_t window_ = kFirstWindow;
  bool doubted_ = false;  // since the last window, one was wasted
  uint64_t reached_ = 0;  // the furthest step that was touched
  uint64_t end_ = 1;      // the first that was not guessed
  // The steps at which the newest window, and the one before it, have the next one guessed.
  uint64_t newest_ = 0, before_newest_ = 0;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_PREFETCH_STRIDE_WALK_H_
