// SPDX-License-Identifier: Apache-2.0
//
// The virtual machine that is measured: the one of deploy/e2e/vm/guest, which owns memory, checks
// and rewrites it all the time, and tells on its console what it finds, with a tick every 10 ms.
#ifndef FAULTLINE_CLIENT_BENCH_VM_GUEST_H_
#define FAULTLINE_CLIENT_BENCH_VM_GUEST_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "client/bench/child_process.h"
#include "client/bench/vm/output_lines.h"
#include "client/vm/qmp_client.h"

namespace faultline::bench {

struct GuestOptions {
  std::string qemu = "qemu-system-x86_64";
  std::string folder;  // vmlinuz and initrd, as make-guest makes them
  std::string accelerator = "tcg";
  uint64_t ram_mib = 512;
  uint64_t busy_mib = 200;  // that the guest's program owns
};

// FAILED_PRECONDITION, with what to do about it, where no such machine can be run here.
absl::Status CheckGuest(const GuestOptions& options);

// The command that starts it, with its console on the standard output. `backend` is the -object of
// its RAM, without "id" and "size"; a socket of QMP listens at each of `qmp_paths`.
std::vector<std::string> GuestCommand(const GuestOptions& options, const std::string& backend,
                                      const std::vector<std::string>& qmp_paths);

struct GuestTick {
  absl::Time at;
  uint64_t number = 0, pass = 0, bad = 0;
};
std::vector<GuestTick> TicksOf(const std::vector<StampedLine>& lines);

// How long a guest that runs is waited for: for a tick, and for one or two of its passes.
inline constexpr absl::Duration kTickPatience = absl::Minutes(1);
inline constexpr absl::Duration kPassPatience = absl::Minutes(5);

// A program with its output. Ends with this object.
struct WatchedProgram {
  std::unique_ptr<OutputLines> out, err;
  ChildProcess process;  // last: it ends first

  static absl::StatusOr<WatchedProgram> Start(const std::string& what,
                                              const std::vector<std::string>& argv);

  // The guest's last tick so far.
  std::optional<GuestTick> LastTick() const;
  // Waits until the guest has got through `passes` of its passes.
  absl::Status AwaitPass(uint64_t passes, absl::Duration timeout) const;
  // DATA_LOSS, quoting the first one, where the guest has found a wrong word.
  absl::Status CheckWords() const;
};

// Connects to the socket of a QEMU that was just started.
absl::StatusOr<std::unique_ptr<QmpClient>> ConnectToNew(const std::string& qmp_path,
                                                        const WatchedProgram& qemu);

}  // namespace faultline::bench

#endif  // FAULTLINE_CLIENT_BENCH_VM_GUEST_H_
