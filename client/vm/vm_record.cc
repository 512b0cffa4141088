// SPDX-License-Identifier: Apache-2.0
#include "client/vm/vm_record.h"

#include <absl/strings/str_cat.h>

#include <nlohmann/json.hpp>

#include "proto/page.h"
#include "proto/units.h"

namespace faultline {
namespace {

using nlohmann::ordered_json;

// Begins the first page of a device state; the record follows on the next line.
constexpr absl::string_view kMagic = "faultline-vm-state 1\n";
constexpr absl::string_view kMachineSuffix = "-machine";

absl::Status Different(absl::string_view what, absl::string_view saved, absl::string_view started,
                       absl::string_view cure) {
  return absl::FailedPreconditionError(absl::StrCat("the saved machine has ", what, " ", saved,
                                                    ", the started one ", started, "; ", cure));
}

// As -machine takes it.
absl::string_view MachineName(absl::string_view type) {
  if (type.size() > kMachineSuffix.size() &&
      type.substr(type.size() - kMachineSuffix.size()) == kMachineSuffix) {
    type.remove_suffix(kMachineSuffix.size());
  }
  return type;
}

std::string VersionText(uint64_t version) {
  return absl::StrCat(version / 1'000'000, ".", version / 1000 % 1000);
}

absl::Status NoRecord(absl::string_view key) {
  return absl::InvalidArgumentError(
      absl::StrCat("no record of a virtual machine: \"", key, "\" is missing or of another kind"));
}

}  // namespace

ordered_json VmRecordToJson(const VmRecord& record) {
  return {{"machine", record.machine},
          {"backend", record.backend},
          {"ram_bytes", record.ram_bytes},
          {"cpus", record.cpus},
          {"qemu_version", record.qemu_version}};
}

absl::StatusOr<VmRecord> ParseVmRecord(const ordered_json& json) {
  if (!json.is_object()) return absl::InvalidArgumentError("no record of a virtual machine");
  VmRecord record;
  for (const auto& [key, text] :
       {std::pair("machine", &record.machine), std::pair("backend", &record.backend)}) {
    const auto it = json.find(key);
    if (it == json.end() || !it->is_string()) return NoRecord(key);
    *text = it->get<std::string>();
  }
  for (const auto& [key, number] :
       {std::pair("ram_bytes", &record.ram_bytes), std::pair("cpus", &record.cpus),
        std::pair("qemu_version", &record.qemu_version)}) {
    const auto it = json.find(key);
    if (it == json.end() || !it->is_number_unsigned()) return NoRecord(key);
    *number = it->get<uint64_t>();
  }
  return record;
}

absl::Status CheckSameMachine(const VmRecord& saved, const VmRecord& started) {
  if (saved.machine != started.machine) {
    return Different("the type", MachineName(saved.machine), MachineName(started.machine),
                     absl::StrCat("start QEMU with -machine ", MachineName(saved.machine),
                                  ",memory-backend=", saved.backend));
  }
  if (saved.backend != started.backend) {
    return Different("the memory backend", saved.backend, started.backend,
                     absl::StrCat("start QEMU with -machine memory-backend=", saved.backend,
                                  " and -object memory-backend-ram,id=", saved.backend,
                                  ",size=", FormatBytes(saved.ram_bytes)));
  }
  if (saved.ram_bytes != started.ram_bytes) {
    const uint64_t mib = saved.ram_bytes >> 20;
    return Different("RAM of", FormatBytes(saved.ram_bytes), FormatBytes(started.ram_bytes),
                     absl::StrCat("start QEMU with -m ", mib, " and size=", mib, "M in -object"));
  }
  if (saved.cpus != started.cpus) {
    return Different("processors:", absl::StrCat(saved.cpus), absl::StrCat(started.cpus),
                     absl::StrCat("start QEMU with -smp ", saved.cpus));
  }
  if (started.qemu_version / 1000 < saved.qemu_version / 1000) {
    return Different("QEMU", VersionText(saved.qemu_version), VersionText(started.qemu_version),
                     "start one that is at least as new");
  }
  return absl::OkStatus();
}

std::string EncodeDeviceState(const VmRecord& record, absl::string_view state) {
  ordered_json json = VmRecordToJson(record);
  json["state_bytes"] = state.size();
  std::string image =
      absl::StrCat(kMagic, json.dump(-1, ' ', true, ordered_json::error_handler_t::replace), "\n");
  image.resize(kPageSize, '\0');
  image.append(state.data(), state.size());
  return image;
}

absl::StatusOr<DeviceState> DecodeDeviceState(absl::string_view image, absl::string_view volume) {
  const absl::Status none = absl::DataLossError(
      absl::StrCat("volume ", volume,
                   " holds no device state of a virtual machine, or not all of one; save the "
                   "machine again"));
  if (image.size() < kPageSize || image.substr(0, kMagic.size()) != kMagic) return none;
  absl::string_view text = image.substr(kMagic.size(), kPageSize - kMagic.size());
  const size_t end = text.find('\n');
  if (end == text.npos) return none;
  text = text.substr(0, end);
  const ordered_json json =
      ordered_json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  absl::StatusOr<VmRecord> record = ParseVmRecord(json);
  if (!record.ok()) return none;
  const auto size = json.find("state_bytes");
  if (size == json.end() || !size->is_number_unsigned()) return none;
  image.remove_prefix(kPageSize);
  if (size->get<uint64_t>() > image.size()) return none;
  return DeviceState{*std::move(record), std::string(image.substr(0, size->get<uint64_t>()))};
}

}  // namespace faultline
