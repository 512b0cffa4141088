// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_PREFETCH_STREAM_PREFETCHER_H_
#define FAULTLINE_CLIENT_PREFETCH_STREAM_PREFETCHER_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "client/prefetch/prefetcher.h"
#include "client/prefetch/stride_walk.h"

namespace faultline {

// Follows several places at once, each with its own stride: a table of the places that were touched
// last. A touch belongs to the place whose walk covers it, or else to the nearest within 1 MiB, or
// takes the entry that was used longest ago.
class StreamPrefetcher final : public Prefetcher {
 public:
  StreamPrefetcher() { streams_.reserve(kStreams); }

  void OnTouch(PageIndex page, TouchKind kind, std::vector<Guess>* ahead) override;
  void OnWaste(PageIndex page) override;

 private:
  static constexpr size_t kStreams = 64;
  static constexpr uint64_t kReach = 256;  // pages
  // As many equal distances in a row make a walk.
  static constexpr int kSteady = 2;

  struct Stream {
    PageIndex last;
    uint64_t used = 0;  // when, counted in touches
    int64_t stride = 0;
    int steady = 0;
    std::optional<StrideWalk> walk;
  };

  Stream* FindWalk(PageIndex page);
  Stream* FindNear(PageIndex page);
  Stream* Replace(PageIndex page);

  std::vector<Stream> streams_;
  uint64_t now_ = 0;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_PREFETCH_STREAM_PREFETCHER_H_
