// SPDX-License-Identifier: Apache-2.0
#include "client/vm/qemu.h"

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/strip.h>
#include <absl/time/clock.h>
#include <absl/time/time.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <utility>

#include "client/cli/file_error.h"
#include "proto/units.h"

namespace faultline {
namespace {

using nlohmann::json;

// Of a device state to be written or read. Reading it may wait for pages of the RAM.
constexpr absl::Duration kMigrationTimeout = absl::Minutes(5);
constexpr absl::Duration kPollInterval = absl::Milliseconds(1);
constexpr char kDescriptorName[] = "faultline-state";
// Since this version only files count as shared for x-ignore-shared, not memfds.
constexpr uint64_t kOnlyFilesAreShared = 8'001'000;

absl::Status Unexpected(absl::string_view what) {
  return absl::FailedPreconditionError(
      absl::StrCat("QEMU's answer about ", what, " is not of a form that is known here"));
}

bool UsesRamBesideQemu(absl::string_view device) {
  absl::ConsumePrefix(&device, "x-");
  return absl::StartsWith(device, "vfio-") || absl::StartsWith(device, "vhost-user-") ||
         absl::StartsWith(device, "vhost-vdpa-");
}

absl::Status NotOnlyQemu(absl::string_view what) {
  return absl::FailedPreconditionError(
      absl::StrCat(what,
                   " has others than QEMU use the RAM, whose pages would not come for them; "
                   "start QEMU with devices of its own (virtio-blk, virtio-net on -netdev "
                   "tap or user)"));
}

absl::StatusOr<UniqueFd> MemfdWith(absl::string_view bytes) {
  UniqueFd fd(memfd_create("device-state", MFD_CLOEXEC));
  if (!fd) return FileError(errno, "make", "a memfd");
  while (!bytes.empty()) {
    const ssize_t n = write(fd.get(), bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return FileError(errno, "write", "a memfd");
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  lseek(fd.get(), 0, SEEK_SET);
  return fd;
}

}  // namespace

absl::StatusOr<std::string> Qemu::Property(absl::string_view path, absl::string_view name) {
  absl::StatusOr<json> value =
      client_->Execute("qom-get", {{"path", std::string(path)}, {"property", std::string(name)}});
  if (!value.ok()) return value.status();
  if (!value->is_string()) return Unexpected(absl::StrCat(path, ".", name));
  return value->get<std::string>();
}

absl::StatusOr<VmRecord> Qemu::Describe() {
  VmRecord record;
  record.qemu_version = client_->version();
  absl::StatusOr<std::string> machine = Property("/machine", "type");
  if (!machine.ok()) return machine.status();
  record.machine = *std::move(machine);
  absl::StatusOr<json> cpus = client_->Execute("query-cpus-fast");
  if (!cpus.ok()) return cpus.status();
  record.cpus = cpus->size();
  absl::StatusOr<json> backends = client_->Execute("query-memdev");
  if (!backends.ok()) return backends.status();
  if (!backends->is_array()) return Unexpected("memory backends");
  if (backends->size() != 1) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the machine has ", backends->size(),
        " memory backends, of which one can be served: name it by -machine memory-backend=ID, and "
        "have neither NUMA nodes nor DIMMs"));
  }
  const json& backend = (*backends)[0];
  if (!backend.is_object() || !backend.contains("id") || !backend["id"].is_string() ||
      !backend.contains("size") || !backend["size"].is_number_unsigned()) {
    return Unexpected("memory backends");
  }
  record.backend = backend["id"].get<std::string>();
  record.ram_bytes = backend["size"].get<uint64_t>();
  return record;
}

absl::Status Qemu::CheckRamIsShared(const VmRecord& record) {
  const std::string path = absl::StrCat("/objects/", record.backend);
  const std::string cure = absl::StrCat(
      "; start QEMU with -machine memory-backend=mem0 -object memory-backend-file,id=mem0,size=",
      record.ram_bytes >> 20, "M,share=on,mem-path=FILE, FILE being on a tmpfs such as /dev/shm");
  absl::StatusOr<json> share = client_->Execute("qom-get", {{"path", path}, {"property", "share"}});
  if (!share.ok()) return share.status();
  if (*share != true) {
    return absl::FailedPreconditionError(absl::StrCat("the machine's RAM, ", record.backend,
                                                      ", is private to QEMU (share=off)", cure));
  }
  absl::StatusOr<std::string> type = Property(path, "type");
  if (!type.ok()) return type.status();
  const bool anonymous = *type == "memory-backend-ram";
  if (anonymous || (*type != "memory-backend-file" && record.qemu_version >= kOnlyFilesAreShared)) {
    return absl::FailedPreconditionError(
        absl::StrCat("the machine's RAM, ", record.backend, ", is a ", *type,
                     ", which this QEMU would write into the device state", cure));
  }
  return absl::OkStatus();
}

absl::Status Qemu::CheckOnlyQemuUsesRam() {
  for (const char* place : {"/machine/peripheral", "/machine/peripheral-anon"}) {
    absl::StatusOr<json> devices = client_->Execute("qom-list", {{"path", place}});
    if (!devices.ok()) return devices.status();
    if (!devices->is_array()) return Unexpected("devices");
    for (const json& device : *devices) {
      const json type = device.value("type", json());
      if (!type.is_string()) return Unexpected("devices");
      absl::string_view name = type.get_ref<const std::string&>();
      if (!absl::ConsumePrefix(&name, "child<") || !absl::ConsumeSuffix(&name, ">")) continue;
      if (UsesRamBesideQemu(name)) return NotOnlyQemu(absl::StrCat("the device ", name));
    }
  }
  // No command of QMP tells of what kind a network back end is.
  absl::StatusOr<json> network =
      client_->Execute("human-monitor-command", {{"command-line", "info network"}});
  if (!network.ok()) return network.status();
  if (!network->is_string()) return Unexpected("network back ends");
  for (const char* type : {"vhost-user", "vhost-vdpa"}) {
    if (!absl::StrContains(network->get_ref<const std::string&>(), absl::StrCat("type=", type))) {
      continue;
    }
    return NotOnlyQemu(absl::StrCat("a -netdev ", type));
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> Qemu::IsRunning() {
  absl::StatusOr<json> status = client_->Execute("query-status");
  if (!status.ok()) return status.status();
  if (!status->is_object() || !(*status)["running"].is_boolean()) return Unexpected("its status");
  return (*status)["running"].get<bool>();
}

absl::Status Qemu::Stop() { return client_->Execute("stop").status(); }

absl::Status Qemu::Continue() { return client_->Execute("cont").status(); }

absl::Status Qemu::Quit() {
  const absl::Status status = client_->Execute("quit").status();
  return absl::IsUnavailable(status) ? absl::OkStatus() : status;
}

absl::Status Qemu::IgnoreSharedRam() {
  const json capability = {{"capability", "x-ignore-shared"}, {"state", true}};
  return client_->Execute("migrate-set-capabilities", {{"capabilities", json::array({capability})}})
      .status();
}

absl::StatusOr<UniqueFd> Qemu::SaveDeviceState() {
  if (absl::Status status = IgnoreSharedRam(); !status.ok()) return status;
  absl::StatusOr<UniqueFd> file = MemfdWith("");
  if (!file.ok()) return file.status();
  // A descriptor and not "exec:cat >FILE": that works in a sandbox, and needs no place for a file.
  absl::Status status =
      client_->ExecuteWithDescriptor("getfd", {{"fdname", kDescriptorName}}, file->get()).status();
  if (!status.ok()) return status;
  status = client_->Execute("migrate", {{"uri", absl::StrCat("fd:", kDescriptorName)}}).status();
  if (!status.ok()) {
    client_->Execute("closefd", {{"fdname", kDescriptorName}}).IgnoreError();
    return status;
  }
  if (status = AwaitMigration("writing the device state"); !status.ok()) {
    client_->Execute("migrate_cancel").IgnoreError();
    return status;
  }
  return file;
}

absl::Status Qemu::LoadDeviceState(absl::string_view state) {
  if (absl::Status status = IgnoreSharedRam(); !status.ok()) return status;
  const absl::StatusOr<UniqueFd> file = MemfdWith(state);
  if (!file.ok()) return file.status();
  absl::Status status =
      client_->ExecuteWithDescriptor("getfd", {{"fdname", kDescriptorName}}, file->get()).status();
  if (!status.ok()) return status;
  // While it loads, QEMU answers nothing, and it may have to wait for pages.
  client_->set_timeout(kMigrationTimeout);
  status = client_->Execute("migrate-incoming", {{"uri", absl::StrCat("fd:", kDescriptorName)}})
               .status();
  if (!status.ok()) return status;
  return AwaitMigration("loading the device state");
}

absl::Status Qemu::AwaitMigration(absl::string_view what) {
  const absl::Time deadline = absl::Now() + kMigrationTimeout;
  while (absl::Now() < deadline) {
    absl::StatusOr<json> migration = client_->Execute("query-migrate");
    if (!migration.ok()) return migration.status();
    if (!migration->is_object()) return Unexpected("its migration");
    const json state = migration->value("status", json());
    if (state == "completed") return absl::OkStatus();
    if (state == "failed" || state == "cancelled") {
      const json reason = migration->value("error-desc", json("it does not say why"));
      return absl::FailedPreconditionError(absl::StrCat(
          "QEMU failed at ", what, ": ", reason.is_string() ? reason.get<std::string>() : ""));
    }
    absl::SleepFor(kPollInterval);
  }
  return absl::DeadlineExceededError(
      absl::StrCat("QEMU did not end ", what, " within ", absl::FormatDuration(kMigrationTimeout)));
}

absl::StatusOr<std::string> ReadDeviceState(int fd) {
  struct stat status {};
  if (fstat(fd, &status) != 0) return FileError(errno, "examine", "the device state");
  std::string bytes(static_cast<size_t>(status.st_size), '\0');
  size_t got = 0;
  while (got < bytes.size()) {
    const ssize_t n = pread(fd, bytes.data() + got, bytes.size() - got, static_cast<off_t>(got));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return FileError(n < 0 ? errno : EIO, "read", "the device state");
    got += static_cast<size_t>(n);
  }
  return bytes;
}

}  // namespace faultline
