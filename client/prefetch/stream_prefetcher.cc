// SPDX-License-Identifier: Apache-2.0
#include "client/prefetch/stream_prefetcher.h"

#include <algorithm>

namespace faultline {

StreamPrefetcher::Stream* StreamPrefetcher::FindWalk(PageIndex page) {
  Stream* found = nullptr;  // the latest: an older one has come by here before
  for (Stream& stream : streams_) {
    if (found != nullptr && stream.used < found->used) continue;
    if (stream.walk && stream.walk->Covers(page)) found = &stream;
  }
  return found;
}

StreamPrefetcher::Stream* StreamPrefetcher::FindNear(PageIndex page) {
  Stream* nearest = nullptr;
  uint64_t distance = kReach + 1;
  for (Stream& stream : streams_) {
    const uint64_t d =
        stream.last < page ? page.raw() - stream.last.raw() : stream.last.raw() - page.raw();
    if (d >= distance) continue;
    nearest = &stream;
    distance = d;
  }
  return nearest;
}

StreamPrefetcher::Stream* StreamPrefetcher::Replace(PageIndex page) {
  Stream* stream;
  if (streams_.size() < kStreams) {
    stream = &streams_.emplace_back();
  } else {
    stream = &*std::min_element(streams_.begin(), streams_.end(),
                                [](const Stream& a, const Stream& b) { return a.used < b.used; });
    *stream = Stream();
  }
  stream->last = page;
  return stream;
}

void StreamPrefetcher::OnTouch(PageIndex page, TouchKind kind, std::vector<Guess>* ahead) {
  ++now_;
  Stream* stream = FindWalk(page);
  if (stream != nullptr && !stream->walk->Continues(page, kind)) {
    stream->walk.reset();
    stream->steady = 0;
  } else if (stream != nullptr) {
    stream->walk->OnTouch(page, ahead);
  } else if (stream = FindNear(page); stream != nullptr && stream->last == page) {
    // Lost and touched again: tells of no direction.
  } else if (stream != nullptr) {
    const int64_t distance =
        static_cast<int64_t>(page.raw()) - static_cast<int64_t>(stream->last.raw());
    stream->steady = distance == stream->stride ? stream->steady + 1 : 1;
    stream->stride = distance;
    stream->walk.reset();
    if (stream->steady >= kSteady) {
      stream->walk.emplace(page, distance, StrideWalk::kMaxWindow, ahead);
    }
  } else {
    stream = Replace(page);
  }
  stream->last = page;
  stream->used = now_;
}

void StreamPrefetcher::OnWaste(PageIndex page) {
  Stream* const stream = FindWalk(page);
  if (stream == nullptr || stream->walk->OnWaste()) return;
  stream->walk.reset();
  stream->steady = 0;
}

}  // namespace faultline
