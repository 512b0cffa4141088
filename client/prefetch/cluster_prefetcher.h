// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_PREFETCH_CLUSTER_PREFETCHER_H_
#define FAULTLINE_CLIENT_PREFETCH_CLUSTER_PREFETCHER_H_

#include <cstdint>
#include <vector>

#include "client/prefetch/majority_prefetcher.h"
#include "client/prefetch/prefetcher.h"

namespace faultline {

// As majority; and where nobody walks, the pages around one that was missed come with it, as in the
// kernel's read-ahead of swap. How many that are depends on how often they are of use: each cluster
// has one page that is staged, and so is seen to be touched, or not. Where they are of no use, one
// neighbour is tried now and then, and nothing else comes.
//
// A cluster is an aligned group of pages, so that two pages of it never fetch different neighbours.
class ClusterPrefetcher final : public Prefetcher {
 public:
  void OnTouch(PageIndex page, TouchKind kind, std::vector<Guess>* ahead) override;
  void OnWaste(PageIndex page) override;

  // Pages of a cluster, the missed one included; 1: none come. For tests.
  uint64_t cluster() const { return cluster_; }

 private:
  static constexpr uint64_t kMaxCluster = 16;
  // So many staged pages are looked at before the cluster changes; of these, so many have to be
  // touched for it to double, and fewer halve it. A page that comes in a cluster costs about a
  // fifth of one that is missed, but it takes the place of another.
  static constexpr uint32_t kVerdicts = 16, kGood = 12, kPoor = 9;
  static constexpr uint32_t kTrial = 64;  // one of so many misses, where none come

  void Judge(bool touched);

  MajorityPrefetcher walks_;
  uint64_t cluster_ = 1;
  PageIndex end_;  // of the last cluster that was guessed
  uint32_t verdicts_ = 0, touched_ = 0;
  uint32_t misses_ = 0;  // since the last trial
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_PREFETCH_CLUSTER_PREFETCHER_H_
