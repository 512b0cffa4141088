// SPDX-License-Identifier: Apache-2.0
//
// What the server counts. Every field is atomic on its own and relaxed: the numbers are for people
// and graphs, nothing is decided by them.
#ifndef FAULTLINE_SERVER_COUNTERS_H_
#define FAULTLINE_SERVER_COUNTERS_H_

#include <atomic>
#include <cstdint>

#include "proto/latency_histogram.h"

namespace faultline {

class Counter {
 public:
  void Add(uint64_t n) { value_.fetch_add(n, std::memory_order_relaxed); }
  void Subtract(uint64_t n) { value_.fetch_sub(n, std::memory_order_relaxed); }
  uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

struct ServerCounters {
  // How many there are now.
  Counter fetch_streams;
  Counter write_streams;
  // How many there have been since the start.
  Counter pages_fetched;
  Counter pages_written;    // trimmed ones included
  Counter requests_failed;  // answered with an error; streams that ended with one not included
  Counter calls_refused;    // calls, and requests of streams, for want of a role
  Counter handshakes_failed;

  // Of fetches and writes that have succeeded: from the arrival of the request to its answer, and
  // of that, in the store.
  LatencyHistogram fetches, writes, store_reads, store_writes;
};

}  // namespace faultline

#endif  // FAULTLINE_SERVER_COUNTERS_H_
