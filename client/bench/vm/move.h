// SPDX-License-Identifier: Apache-2.0
//
// One machine, moved once from one QEMU of this host to another, in each of the ways that are
// compared.
#ifndef FAULTLINE_CLIENT_BENCH_VM_MOVE_H_
#define FAULTLINE_CLIENT_BENCH_VM_MOVE_H_

#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <optional>
#include <string>
#include <vector>

#include "client/bench/vm/guest.h"
#include "client/bench/vm/switch_times.h"

namespace faultline::bench {

enum class MoveMode { kFaultline, kPostcopy, kPostcopyPreempt, kPrecopy };
const char* MoveModeName(MoveMode mode);

struct MoveOptions {
  GuestOptions guest;
  std::string directory;                             // of sockets and RAM; on a tmpfs
  std::vector<std::string> accept_flags;             // further ones of vm accept
  absl::Duration precopy_limit = absl::Seconds(30);  // until it is taken not to converge
};

// Boots the machine, lets it get busy, moves it, and lets it run until each of its words was
// checked after everything was there. DATA_LOSS where one was wrong. Nothing where the mode is
// pre-copy and has not converged.
absl::StatusOr<std::optional<Move>> MoveOnce(MoveMode mode, const MoveOptions& options);

}  // namespace faultline::bench

#endif  // FAULTLINE_CLIENT_BENCH_VM_MOVE_H_
