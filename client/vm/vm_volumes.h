// SPDX-License-Identifier: Apache-2.0
//
// A saved virtual machine as volumes: its RAM is volume NAME, its device state volume NAME-state,
// which is written last and makes the two a saved machine.
#ifndef FAULTLINE_CLIENT_VM_VM_VOLUMES_H_
#define FAULTLINE_CLIENT_VM_VM_VOLUMES_H_

#include <absl/functional/function_ref.h>
#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <string>

#include "client/remote/admin_client.h"
#include "client/vm/vm_record.h"
#include "proto/page_codec.h"

namespace faultline {

std::string StateVolumeName(const std::string& volume);

struct SavedVm {
  uint64_t stored_bytes = 0;  // of the RAM, as the server says
};

struct StoreVmOptions {
  std::string volume;
  Codec codec = Codec::kRaw;
  bool replace = false;  // a saved machine, or a volume, of this name
};

// ALREADY_EXISTS, unless they may be replaced, where there is a volume of one of the two names.
absl::Status CheckVolumesAreFree(AdminClient* client, const StoreVmOptions& options);

// Stores the RAM that is in the file `ram`, holes left out, and the device state that is in the
// file `state`. Calls `check` now and then, and ends with its error. Where it fails, a volume that
// it has made is deleted; of a saved machine that was to be replaced nothing is left.
absl::StatusOr<SavedVm> StoreVm(AdminClient* client, const StoreVmOptions& options,
                                const VmRecord& record, const std::string& ram, int state,
                                absl::FunctionRef<absl::Status()> check);

// NOT_FOUND, saying how a machine is saved, where there is none; FAILED_PRECONDITION where the RAM
// is not of the size that the state says; DATA_LOSS where the state is damaged.
absl::StatusOr<DeviceState> FetchSavedVm(AdminClient* client, const std::string& volume);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_VM_VM_VOLUMES_H_
