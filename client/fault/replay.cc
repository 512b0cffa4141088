// SPDX-License-Identifier: Apache-2.0
#include "client/fault/replay.h"

#include <algorithm>
#include <span>

namespace faultline {
namespace {

// Ascending runs, from so many on in `runs`, are added to; small gaps become part of a run.
class RunBuilder {
 public:
  explicit RunBuilder(std::vector<PageRange>* runs) : runs_(runs), begin_(runs->size()) {}

  void Add(PageRange pages) {
    if (runs_->size() > begin_) {
      PageRange& last = runs_->back();
      if (pages.first <= last.end() + Replay::kSmallGap) {
        last = PageRange::Between(last.first, pages.end());
        return;
      }
    }
    runs_->push_back(pages);
  }

 private:
  std::vector<PageRange>* const runs_;
  const size_t begin_;
};

}  // namespace

Replay::Replay(const WorkingSet& set, bool waits) : target_waits(waits) {
  std::vector<PageIndex> ordered(set.first().begin(), set.first().end());
  for (size_t at = 0; at < ordered.size(); at += kPart.raw()) {
    const auto begin = ordered.begin() + static_cast<ptrdiff_t>(at);
    const auto end = begin + static_cast<ptrdiff_t>(std::min(ordered.size() - at, kPart.raw()));
    std::sort(begin, end);
    RunBuilder builder(&runs);
    std::for_each(begin, end, [&](PageIndex page) { builder.Add(PageRange::Single(page)); });
    if (at == 0) first_part = runs.size();
  }
  std::sort(ordered.begin(), ordered.end());
  RunBuilder builder(&runs);
  auto next = ordered.begin();
  for (PageRange run = set.pages().NextRun(PageIndex(0)); !run.empty();
       run = set.pages().NextRun(run.end())) {
    PageIndex from = run.first;
    for (; next != ordered.end() && *next < run.end(); ++next) {
      if (from < *next) builder.Add(PageRange::Between(from, *next));
      from = *next + PageCount(1);
    }
    if (from < run.end()) builder.Add(PageRange::Between(from, run.end()));
  }
}

}  // namespace faultline
