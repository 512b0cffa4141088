// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_BENCH_PROCESS_CPU_H_
#define FAULTLINE_CLIENT_BENCH_PROCESS_CPU_H_

#include <sys/types.h>
#include <time.h>

namespace faultline::bench {

// The CPU time of all threads that a process has had, in microseconds; 0 where it is gone. Unlike
// /proc/PID/stat, which counts in steps of 10 ms, exact to the nanosecond.
inline double ProcessCpuMicros(pid_t pid) {
  clockid_t clock;
  timespec time{};
  if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &time) != 0) return 0;
  return static_cast<double>(time.tv_sec) * 1e6 + static_cast<double>(time.tv_nsec) / 1e3;
}

// How much CPU time a process uses from here on.
class CpuWatch {
 public:
  explicit CpuWatch(pid_t pid) : pid_(pid), before_(ProcessCpuMicros(pid)) {}
  double Micros() const { return ProcessCpuMicros(pid_) - before_; }

 private:
  pid_t pid_;
  double before_;
};

}  // namespace faultline::bench

#endif  // FAULTLINE_CLIENT_BENCH_PROCESS_CPU_H_
