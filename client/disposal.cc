// SPDX-License-Identifier: Apache-2.0
#include "client/disposal.h"

#include <pthread.h>

namespace faultline {

Disposal::~Disposal() {
  {
    MutexLock lock(state_->mu);
    state_->stopping = true;
  }
  state_->changed.SignalAll();
  thread_.join();
}

void Disposal::Take(State& state, std::shared_ptr<void> object) {
  {
    MutexLock lock(state.mu);
    if (state.stopping) return;  // `object` goes here
    state.objects.push_back(std::move(object));
  }
  state.changed.SignalAll();
}

void Disposal::WaitForRoom(size_t limit, SteadyClock::time_point deadline) {
  MutexLock lock(state_->mu);
  while (state_->objects.size() >= limit && SteadyClock::now() < deadline) {
    state_->changed.WaitUntil(state_->mu, deadline);
  }
}

void Disposal::Run() {
  pthread_setname_np(pthread_self(), "fl-disposal");
  State& state = *state_;
  for (;;) {
    std::shared_ptr<void> object;
    {
      MutexLock lock(state.mu);
      while (state.objects.empty() && !state.stopping) state.changed.Wait(state.mu);
      if (state.objects.empty()) return;
      object = std::move(state.objects.front());
    }
    object.reset();
    MutexLock lock(state.mu);
    state.objects.pop_front();
    state.changed.SignalAll();
  }
}

}  // namespace faultline
