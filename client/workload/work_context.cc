// SPDX-License-Identifier: Apache-2.0
#include "client/workload/work_context.h"

#include <sched.h>

#include <thread>
#include <utility>
#include <vector>

namespace faultline::workload {
namespace {

// The thread that calls it, to the `thread`th of the processors that it may run on.
void PinTo(unsigned thread) {
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  unsigned left = thread % static_cast<unsigned>(CPU_COUNT(&allowed));
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &allowed) || left-- > 0) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    // Where it is refused the thread runs anywhere, and its bytes are right all the same.
    static_cast<void>(sched_setaffinity(0, sizeof one, &one));
    return;
  }
}

}  // namespace

void WorkContext::RunThreads(const std::function<void(unsigned)>& work) const {
  if (options_.threads == 1 && !options_.pin_cpu) {
    work(0);
    return;
  }
  std::vector<std::thread> threads;
  for (unsigned thread = 0; thread < options_.threads; ++thread) {
    threads.emplace_back([&, thread] {
      if (options_.pin_cpu) PinTo(thread);
      work(thread);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

void WorkContext::ReportWrong(std::string what) {
  ReportFailure({EBADMSG, "wrong content: " + std::move(what)});
}

void WorkContext::ReportFailure(Failure failure) {
  std::call_once(once_, [&] {
    finding_ = std::move(failure);
    wrong_.store(true, std::memory_order_relaxed);
  });
}

}  // namespace faultline::workload
