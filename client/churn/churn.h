// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_CHURN_CHURN_H_
#define FAULTLINE_CLIENT_CHURN_CHURN_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "client/churn/operation.h"
#include "client/churn/worker.h"
#include "client/lib/failure.h"

namespace faultline::churn {

struct ChurnOptions {
  std::string socket;  // of the agent; empty: nobody is attached, the memory is filled beforehand
  std::string volume;
  bool drain = true;
  bool agent_may_die = false;  // and another go on: a handover that is lost with it is made anew
  MemoryKind memory = MemoryKind::kAnon;
  OperationMix mix{MemoryKind::kAnon};
  uint64_t seed = 1;
  uint64_t pages = 16384;  // a multiple of kSlotPages * threads
  unsigned threads = 4;
  uint64_t operations = 0;        // of all threads together; 0: until the time is up
  std::chrono::seconds time{10};  // 0: until the operations are done
  // Whether the time is up before that; asked all the time.
  std::function<bool()> is_over = [] { return false; };
  // Of each thread, before all memory is unmapped and a fresh attachment begins; 0: by the memory.
  uint64_t generation_operations = 0;
  uint64_t storm = 0;  // single pages to discard instead of all that
  Company::OnWrong on_wrong = Company::OnWrong::kStop;
  std::chrono::seconds hang_limit{10};
  // Called between two operations of all threads, before an attachment ends.
  std::function<void(uint64_t generation, uint64_t attachment)> before_detach = [](auto, auto) {};
};

// Runs it. `*result` tells what was done and found: operations by kind with their latency, checks,
// wrong bytes, hangs. Fails where the memory or the attachment cannot be had. Where a thread hangs
// for good, `give_up` is called with the result, and must not return.
Failure RunChurn(const ChurnOptions& options,
                 const std::function<void(const nlohmann::ordered_json&)>& give_up,
                 nlohmann::ordered_json* result);

}  // namespace faultline::churn

#endif  // FAULTLINE_CLIENT_CHURN_CHURN_H_
