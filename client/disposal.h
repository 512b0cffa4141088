// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_DISPOSAL_H_
#define FAULTLINE_CLIENT_DISPOSAL_H_

#include <cstddef>
#include <deque>
#include <memory>
#include <thread>
#include <utility>

#include "client/timers.h"
#include "proto/mutex.h"

namespace faultline {

// Destroys, on a thread of its own, what may wait in its destructor: closing a userfaultfd takes
// the target's mmap lock for writing (fs/userfaultfd.c, userfaultfd_release), closing a deleted
// file waits for its disk where that is mounted with discard. Threads that serve faults may not
// wait for either. Thread-safe.
class Disposal {
 public:
  Disposal() : thread_([this] { Run(); }) {}
  // Returns when all that was let go is destroyed. What is let go later its owner destroys.
  ~Disposal();
  Disposal(const Disposal&) = delete;
  Disposal& operator=(const Disposal&) = delete;

  // `object`, which is handed over when the last copy of this pointer goes; may outlive the
  // Disposal.
  template <typename T>
  std::shared_ptr<T> Later(std::shared_ptr<T> object) {
    T* const raw = object.get();
    return {raw, [state = state_, object = std::move(object)](T*) mutable {
              Take(*state, std::move(object));
            }};
  }

  // Returns once fewer than `limit` objects wait to be destroyed, or at `deadline`: whoever makes
  // them is not to be faster than the disk.
  void WaitForRoom(size_t limit, SteadyClock::time_point deadline);

 private:
  struct State {
    Mutex mu;
    CondVar changed;
    // The first keeps its place, empty, while it is destroyed.
    std::deque<std::shared_ptr<void>> objects ABSL_GUARDED_BY(mu);
    bool stopping ABSL_GUARDED_BY(mu) = false;
  };
  static void Take(State& state, std::shared_ptr<void> object);
  void Run();

  const std::shared_ptr<State> state_ = std::make_shared<State>();
  std::thread thread_;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_DISPOSAL_H_
