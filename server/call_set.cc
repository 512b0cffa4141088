// SPDX-License-Identifier: Apache-2.0
#include "server/call_set.h"

namespace faultline {

bool CallSet::Add(Call* call) {
  MutexLock lock(mu_);
  if (draining_) return false;
  calls_.insert(call);
  return true;
}

void CallSet::Remove(Call* call) {
  // Signalled under the lock: whoever waits may destroy the set as soon as it is empty.
  MutexLock lock(mu_);
  calls_.erase(call);
  if (calls_.empty()) changed_.SignalAll();
}

void CallSet::Drain() {
  // Under the lock, so that no call goes away meanwhile.
  MutexLock lock(mu_);
  draining_ = true;
  for (Call* call : calls_) call->Drain();
}

bool CallSet::WaitUntilEmpty(std::chrono::steady_clock::time_point deadline) {
  MutexLock lock(mu_);
  while (!calls_.empty()) {
    if (std::chrono::steady_clock::now() >= deadline) return false;
    changed_.WaitUntil(mu_, deadline);
  }
  return true;
}

}  // namespace faultline
