// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_BENCH_VM_LINK_NAMESPACE_H_
#define FAULTLINE_CLIENT_BENCH_VM_LINK_NAMESPACE_H_

#include <absl/status/status.h>

#include <cstdint>

namespace faultline::bench {

// Puts the calling thread, and whatever it starts from here on, into a network namespace of its own
// whose loopback passes so many bytes per second (tc's tbf; 0: no limit), both directions together.
// It is gone with the last process in it. FAILED_PRECONDITION, saying what is missing, where that
// cannot be.
absl::Status EnterLinkNamespace(uint64_t bytes_per_second);

}  // namespace faultline::bench

#endif  // FAULTLINE_CLIENT_BENCH_VM_LINK_NAMESPACE_H_
