// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_VM_VM_RECORD_H_
#define FAULTLINE_CLIENT_VM_VM_RECORD_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <cstdint>
#include <string>

#include <nlohmann/json_fwd.hpp>

namespace faultline {

// What of a virtual machine must be the same in the QEMU that its state is loaded into.
struct VmRecord {
  std::string machine;  // its type in QEMU's object model: "pc-i440fx-7.2-machine"
  std::string backend;  // the id of the object behind its RAM: "mem0"
  uint64_t ram_bytes = 0;
  uint64_t cpus = 0;
  uint64_t qemu_version = 0;  // as QmpClient::version()

  bool operator==(const VmRecord&) const = default;
};

nlohmann::ordered_json VmRecordToJson(const VmRecord& record);
// INVALID_ARGUMENT where `json` is no such record.
absl::StatusOr<VmRecord> ParseVmRecord(const nlohmann::ordered_json& json);

// FAILED_PRECONDITION unless a QEMU that is as `started` can load the state of `saved`: it says
// what differs, and what on the command line of `started` is to be changed. An older QEMU than the
// saved one is refused, too; a newer one reads older states of the same machine type.
absl::Status CheckSameMachine(const VmRecord& saved, const VmRecord& started);

// A device state as it is kept in a volume: a page with the record, and then QEMU's own bytes.
std::string EncodeDeviceState(const VmRecord& record, absl::string_view state);

struct DeviceState {
  VmRecord record;
  std::string bytes;
};
// DATA_LOSS where `image`, the content of `volume`, is no device state or not the whole of one.
absl::StatusOr<DeviceState> DecodeDeviceState(absl::string_view image, absl::string_view volume);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_VM_VM_RECORD_H_
