// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_EVICT_FIFO_POLICY_H_
#define FAULTLINE_CLIENT_EVICT_FIFO_POLICY_H_

#include <vector>

#include "client/evict/eviction_policy.h"
#include "client/evict/page_queues.h"

namespace faultline {

// First in, first out. A page that returns is as young as one that was filled; with a second
// chance, one that was wanted back also stays for one round more when it has become the oldest.
class FifoPolicy final : public EvictionPolicy {
 public:
  enum class SecondChance : bool { kNo, kYes };

  explicit FifoPolicy(SecondChance second_chance) : second_chance_(second_chance) {}

  void OnFill(PageIndex page, FillCause cause) override;
  void OnWrite(PageIndex page) override;
  void OnReturn(PageIndex page, bool wanted) override;
  void OnDiscard(PageIndex page) override;
  void Choose(PageCount count, std::vector<PageIndex>* victims) override;
  PageCount resident() const override { return pages_.size(); }

 private:
  static constexpr unsigned kResident = 0;

  const SecondChance second_chance_;
  PageQueues pages_;  // one queue of those that are resident; marked: that have a round more
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_EVICT_FIFO_POLICY_H_
