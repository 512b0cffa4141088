// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_VM_END_SIGNALS_H_
#define FAULTLINE_CLIENT_VM_END_SIGNALS_H_

#include <absl/status/status.h>
#include <absl/time/time.h>
#include <pthread.h>
#include <signal.h>

namespace faultline {

// SIGINT, SIGTERM and SIGHUP, which ask a command to end, for as long as it lives blocked: it is
// for the command to look for them. To be made before any thread is started; for one thread.
class EndSignals {
 public:
  EndSignals() {
    sigemptyset(&signals_);
    for (const int number : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&signals_, number);
    pthread_sigmask(SIG_BLOCK, &signals_, &before_);
  }
  ~EndSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  EndSignals(const EndSignals&) = delete;
  EndSignals& operator=(const EndSignals&) = delete;

  // Waits so long for one; whether one has come.
  bool Wait(absl::Duration time) const {
    const timespec timeout = absl::ToTimespec(time);
    return sigtimedwait(&signals_, nullptr, &timeout) > 0;
  }

  // CANCELLED where one has come.
  absl::Status Check() const {
    return Wait(absl::ZeroDuration()) ? absl::CancelledError("ended by a signal")
                                      : absl::OkStatus();
  }

 private:
  sigset_t signals_, before_;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_VM_END_SIGNALS_H_
