// SPDX-License-Identifier: Apache-2.0
//
// For worker*.cc only: what they share of Worker's code.
#ifndef FAULTLINE_CLIENT_CHURN_WORKER_TIMED_H_
#define FAULTLINE_CLIENT_CHURN_WORKER_TIMED_H_

#include "client/churn/worker.h"

namespace faultline::churn {

inline void* At(uint64_t address) { return reinterpret_cast<void*>(address); }

template <typename Call>
auto Worker::Timed(Operation operation, uint64_t address, Call call) {
  const uint64_t begin = NowNanos();
  progress_->Begin(operation, number_, address);
  const auto result = call();
  progress_->End();
  if (depth_ == 0) tally_->of(operation).latency.Record(NowNanos() - begin);
  return result;
}

}  // namespace faultline::churn

#endif  // FAULTLINE_CLIENT_CHURN_WORKER_TIMED_H_
