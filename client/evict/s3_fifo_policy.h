// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_EVICT_S3_FIFO_POLICY_H_
#define FAULTLINE_CLIENT_EVICT_S3_FIFO_POLICY_H_

#include <vector>

#include "client/evict/eviction_policy.h"
#include "client/evict/page_queues.h"

namespace faultline {

// S3-FIFO (Yang et al., SOSP 2023) without access bits. A page that is filled comes into a small
// queue, through which what is used once passes quickly. Into the main queue come pages that were
// wanted again after they had been chosen: out of the victim stage (OnReturn), or filled again
// while the ghost queue, which has the numbers of those that were chosen last, still knows of them.
// In the main queue, being wanted back, or the first write, is worth one round more.
class S3FifoPolicy final : public EvictionPolicy {
 public:
  // `capacity`: about how many pages will be resident; the ghost queue's length is a part of it.
  explicit S3FifoPolicy(PageCount capacity);

  void OnFill(PageIndex page, FillCause cause) override;
  void OnWrite(PageIndex page) override;
  void OnReturn(PageIndex page, bool wanted) override;
  void OnDiscard(PageIndex page) override;
  void Choose(PageCount count, std::vector<PageIndex>* victims) override;
  PageCount resident() const override;

 private:
  void Leave(PageQueues::Entry entry, std::vector<PageIndex>* victims);

  const PageCount max_ghosts_;
  PageQueues pages_;  // marked: that have a round more in the main queue
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_EVICT_S3_FIFO_POLICY_H_
