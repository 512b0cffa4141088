// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_POLLABLE_H_
#define FAULTLINE_CLIENT_POLLABLE_H_

namespace faultline {

// Work that arrives from outside and is otherwise taken by a sleeping thread of its own. A thread
// that spins anyway may take it over for that time, and saves the other's wake-up, which costs more
// than the work (20 to 40 us where the processor is idle).
//
// Begin, Poll and End may be called from any thread; Poll and End only by who has begun.
class Pollable {
 public:
  // From here on Poll() has to be called, until End(). False where somebody else polls already.
  virtual bool Begin() = 0;
  // Does what has arrived, without waiting for more. False where there was nothing.
  virtual bool Poll() = 0;
  virtual void End() = 0;

 protected:
  ~Pollable() = default;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_POLLABLE_H_
