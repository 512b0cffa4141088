// SPDX-License-Identifier: Apache-2.0
#include "client/prefetch/cluster_prefetcher.h"

#include <algorithm>

namespace faultline {

void ClusterPrefetcher::OnTouch(PageIndex page, TouchKind kind, std::vector<Guess>* ahead) {
  const bool of_a_walk = walks_.Covers(page);
  if (kind == TouchKind::kHit && !of_a_walk) return Judge(true);
  // Who misses the page behind a cluster has walked through that.
  if (!of_a_walk && cluster_ > 1 && page == end_) walks_.NoteRun(PageIndex(page.raw() - 1));
  walks_.OnTouch(page, kind, ahead);
  if (of_a_walk || !ahead->empty()) return;
  if (cluster_ == 1 && ++misses_ < kTrial) return;
  misses_ = 0;
  const uint64_t size = std::max<uint64_t>(cluster_, 2);
  const PageIndex first(page.raw() - page.raw() % size);
  const PageIndex end(std::min(first.raw() + size, kMaxVolumePages));
  end_ = end;
  PageRange before = PageRange::Between(first, page);
  PageRange behind = PageRange::Between(page + PageCount(1), end);
  // The staged page is a neighbour, which tells most.
  if (!behind.empty()) {
    ahead->push_back({PageRange::Single(behind.first), Placement::kStaged});
    behind = PageRange::Between(behind.first + PageCount(1), behind.end());
  } else if (!before.empty()) {
    before.count -= PageCount(1);
    ahead->push_back({PageRange::Single(before.end()), Placement::kStaged});
  }
  for (const PageRange& rest : {behind, before}) {
    if (!rest.empty()) ahead->push_back({rest, Placement::kMapped});
  }
}

void ClusterPrefetcher::OnWaste(PageIndex page) {
  if (walks_.Covers(page)) return walks_.OnWaste(page);
  Judge(false);
}

void ClusterPrefetcher::Judge(bool touched) {
  touched_ += touched;
  if (++verdicts_ < kVerdicts) return;
  if (touched_ >= kGood) cluster_ = std::min(cluster_ * 2, kMaxCluster);
  if (touched_ < kPoor) cluster_ = std::max<uint64_t>(cluster_ / 2, 1);
  verdicts_ = touched_ = 0;
}

}  // namespace faultline
