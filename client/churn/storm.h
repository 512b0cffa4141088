// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_CHURN_STORM_H_
#define FAULTLINE_CLIENT_CHURN_STORM_H_

#include <cstdint>
#include <vector>

#include "client/churn/worker.h"

namespace faultline::churn {

// What a balloon does: takes `count` single pages away, in random order, with MADV_DONTNEED, by as
// many threads as the company is to have. Afterwards every byte of all slots is checked. Times go
// to the tally, as Operation::kDontNeed. `slots` are unmapped.
void RunStorm(Company* company, unsigned threads, uint64_t count, std::vector<Slot> slots);

}  // namespace faultline::churn

#endif  // FAULTLINE_CLIENT_CHURN_STORM_H_
