// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_SERVER_CALL_SET_H_
#define FAULTLINE_SERVER_CALL_SET_H_

#include <chrono>
#include <set>

#include "proto/mutex.h"

namespace faultline {

// The calls that a server is serving, so that it can drain: no new ones, the old ones come to their
// end, then everybody knows. Thread-safe.
class CallSet {
 public:
  class Call {
   public:
    virtual ~Call() = default;
    // Asks the call to end by itself once what it is doing is done. Must not block and not remove
    // the call from the set on this thread.
    virtual void Drain() {}
  };

  CallSet() = default;
  CallSet(const CallSet&) = delete;
  CallSet& operator=(const CallSet&) = delete;

  // False, with nothing added, once Drain() was called. `call` is borrowed until Remove().
  [[nodiscard]] bool Add(Call* call);
  // Does nothing for a call that was not added.
  void Remove(Call* call);

  // Refuses new calls from here on and asks the present ones to end.
  void Drain();
  // Whether no call is left, at `deadline` at the latest.
  bool WaitUntilEmpty(std::chrono::steady_clock::time_point deadline);

 private:
  Mutex mu_;
  CondVar changed_;
  bool draining_ ABSL_GUARDED_BY(mu_) = false;
  std::set<Call*> calls_ ABSL_GUARDED_BY(mu_);
};

}  // namespace faultline

#endif  // FAULTLINE_SERVER_CALL_SET_H_
