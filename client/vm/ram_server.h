// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_VM_RAM_SERVER_H_
#define FAULTLINE_CLIENT_VM_RAM_SERVER_H_

#include <absl/status/statusor.h>
#include <absl/time/time.h>
#include <sys/types.h>

#include <string>

#include "client/vm/sibling_daemon.h"

namespace faultline {

// A page server of a QEMU's RAM, in place. Its volume has a name that no other process's RAM has,
// and that it has again when it is served again: an agent that has lost its server never takes
// another machine's RAM, at the same address by chance, for it. Not thread-safe.
class RamServer {
 public:
  // Serves the file `ram` of the QEMU `pid` at `listen`, an address as faultline-server has it.
  static absl::StatusOr<RamServer> Start(pid_t pid, const std::string& ram,
                                         const std::string& listen);

  // Starts it again, at the same address, where it has ended; whether it had. An error is returned
  // once, and it is tried again some time later.
  absl::StatusOr<bool> KeepRunning();

  const std::string& address() const { return address_; }  // with the true port
  const std::string& volume() const { return volume_; }

 private:
  RamServer() = default;
  absl::StatusOr<SiblingDaemon> Serve(const std::string& listen) const;

  std::string ram_, volume_, address_;
  SiblingDaemon server_;
  absl::Time try_again_ = absl::InfinitePast();
};

// The name of the volume: of the process, in this start of this host.
absl::StatusOr<std::string> RamVolumeName(pid_t pid);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_VM_RAM_SERVER_H_
