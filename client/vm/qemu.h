// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_VM_QEMU_H_
#define FAULTLINE_CLIENT_VM_QEMU_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <memory>
#include <string>

#include "client/unique_fd.h"
#include "client/vm/qmp_client.h"
#include "client/vm/vm_record.h"

namespace faultline {

// A running QEMU, and what it takes to move its machine's device state: everything of the machine
// but its RAM, which QEMU leaves out (its capability x-ignore-shared) where it is shared. Blocks;
// not thread-safe. Errors are those of QmpClient, and as said.
class Qemu {
 public:
  explicit Qemu(std::unique_ptr<QmpClient> client) : client_(std::move(client)) {}

  // FAILED_PRECONDITION, saying what to change, unless the machine has exactly one memory backend.
  absl::StatusOr<VmRecord> Describe();
  // FAILED_PRECONDITION, saying what to change, where QEMU would put the RAM into the device state.
  absl::Status CheckRamIsShared(const VmRecord& record);

  // FAILED_PRECONDITION, saying what to change, where somebody beside QEMU uses the RAM: a device
  // in another process (vhost-user), or one that pins it (VFIO, vhost-vdpa). What such a one
  // touches is not paged.
  absl::Status CheckOnlyQemuUsesRam();

  absl::StatusOr<bool> IsRunning();
  absl::Status Stop();
  absl::Status Continue();
  // OK also where the connection ends before the answer comes.
  absl::Status Quit();

  // The device state, in a memfd. REQUIRES: the machine is stopped. Afterwards Continue() works.
  absl::StatusOr<UniqueFd> SaveDeviceState();
  // Loads `state` into a QEMU that was started with -incoming defer; the machine is stopped
  // afterwards. UNAVAILABLE where QEMU ended over it, as it does over a state of another machine.
  absl::Status LoadDeviceState(absl::string_view state);

  // Of an answer, from here on.
  void set_timeout(absl::Duration timeout) { client_->set_timeout(timeout); }
  pid_t pid() const { return client_->peer(); }

 private:
  absl::StatusOr<std::string> Property(absl::string_view path, absl::string_view name);
  absl::Status IgnoreSharedRam();
  // Waits until the migration that was started has ended.
  absl::Status AwaitMigration(absl::string_view what);

  const std::unique_ptr<QmpClient> client_;
};

// All of what SaveDeviceState() has returned.
absl::StatusOr<std::string> ReadDeviceState(int fd);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_VM_QEMU_H_
