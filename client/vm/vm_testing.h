// SPDX-License-Identifier: Apache-2.0
//
// What tests of connections to QEMUs and to other hosts share.
#ifndef FAULTLINE_CLIENT_VM_VM_TESTING_H_
#define FAULTLINE_CLIENT_VM_VM_TESTING_H_

#include <absl/status/status.h>
#include <absl/time/time.h>

namespace faultline {

// Deadlines of what comes, and of what never does.
inline constexpr absl::Duration kLong = absl::Minutes(5);
inline constexpr absl::Duration kShort = absl::Milliseconds(60);

// The interrupted() of a command that no signal ends.
inline absl::Status NoSignal() { return absl::OkStatus(); }

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_VM_VM_TESTING_H_
