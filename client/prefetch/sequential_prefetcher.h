// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_PREFETCH_SEQUENTIAL_PREFETCHER_H_
#define FAULTLINE_CLIENT_PREFETCH_SEQUENTIAL_PREFETCHER_H_

#include <optional>
#include <vector>

#include "client/prefetch/prefetcher.h"
#include "client/prefetch/stride_walk.h"

namespace faultline {

// One ascending run at a time: two neighbours in a row begin one, a touch elsewhere ends it.
class SequentialPrefetcher final : public Prefetcher {
 public:
  void OnTouch(PageIndex page, TouchKind kind, std::vector<Guess>* ahead) override;
  void OnWaste(PageIndex page) override;

 private:
  std::optional<PageIndex> last_;
  std::optional<StrideWalk> walk_;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_PREFETCH_SEQUENTIAL_PREFETCHER_H_
