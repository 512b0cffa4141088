// SPDX-License-Identifier: Apache-2.0
#include "client/vm/vm_volumes.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/string_view.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "client/cli/batch_pipe.h"
#include "client/cli/file_error.h"
#include "client/cli/image_reader.h"
#include "client/cli/progress_line.h"
#include "client/unique_fd.h"
#include "client/vm/qemu.h"
#include "proto/page_batch.h"
#include "proto/units.h"

namespace faultline {
namespace {

// More than any device state has: those of many GiB of video memory are a few hundred MiB.
constexpr uint64_t kMaxStateBytes = uint64_t{4} << 30;

std::string DescriptorPath(int fd) { return absl::StrCat("/proc/self/fd/", fd); }

absl::StatusOr<rpc::Volume> ImportFile(AdminClient* client, const StoreVmOptions& options,
                                       const std::string& name, const std::string& path,
                                       absl::FunctionRef<absl::Status()> check) {
  const auto reader = ImageReader::Open(path, options.codec);
  if (!reader.ok()) return reader.status();
  rpc::ImportVolumeRequest::Begin begin;
  begin.set_name(name);
  begin.set_size_bytes((*reader)->size_bytes());
  begin.set_replace(options.replace);
  ProgressLine progress(absl::StrCat("save ", name));
  BatchPipe pipe(reader->get());
  return client->ImportVolume(begin, [&](rpc::PageBatch* batch) -> absl::StatusOr<bool> {
    if (absl::Status status = check(); !status.ok()) return status;
    progress.Update((*reader)->position_bytes(), (*reader)->size_bytes());
    return pipe.Next(batch);
  });
}

// An image of the device state with its record.
absl::StatusOr<UniqueFd> StateImage(const VmRecord& record, int state) {
  absl::StatusOr<std::string> bytes = ReadDeviceState(state);
  if (!bytes.ok()) return bytes.status();
  UniqueFd file(memfd_create("device-state-volume", MFD_CLOEXEC));
  const std::string image = EncodeDeviceState(record, *bytes);
  for (size_t at = 0; at < image.size();) {
    const ssize_t n = write(file.get(), image.data() + at, image.size() - at);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return FileError(errno, "write", "a memfd");
    at += static_cast<size_t>(n);
  }
  return file;
}

absl::StatusOr<bool> Exists(AdminClient* client, const std::string& name) {
  const absl::Status status = client->StatVolume(name).status();
  if (IsNoVolume(status)) return false;
  if (!status.ok()) return status;
  return true;
}

}  // namespace

std::string StateVolumeName(const std::string& volume) { return absl::StrCat(volume, "-state"); }

absl::Status CheckVolumesAreFree(AdminClient* client, const StoreVmOptions& options) {
  for (const std::string& name : {options.volume, StateVolumeName(options.volume)}) {
    const absl::StatusOr<bool> exists = Exists(client, name);
    if (!exists.ok()) return exists.status();
    if (*exists && !options.replace) {
      return absl::AlreadyExistsError(absl::StrCat(
          "volume ", name, " exists already; save under another name, or with --replace"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<SavedVm> StoreVm(AdminClient* client, const StoreVmOptions& options,
                                const VmRecord& record, const std::string& ram, int state,
                                absl::FunctionRef<absl::Status()> check) {
  const std::string state_name = StateVolumeName(options.volume);
  const absl::StatusOr<UniqueFd> state_image = StateImage(record, state);
  if (!state_image.ok()) return state_image.status();
  const absl::StatusOr<bool> had_ram = Exists(client, options.volume);
  if (!had_ram.ok()) return had_ram.status();
  const absl::StatusOr<bool> had_state = Exists(client, state_name);
  if (!had_state.ok()) return had_state.status();
  // First, so that at no time the state of one machine stands beside the RAM of another.
  if (absl::Status status = *had_state ? client->DeleteVolume(state_name) : absl::OkStatus();
      !status.ok() && !absl::IsNotFound(status)) {
    return status;
  }
  const auto volume = ImportFile(client, options, options.volume, ram, check);
  if (!volume.ok()) return volume.status();  // an import that fails leaves nothing
  const absl::Status status =
      ImportFile(client, options, state_name, DescriptorPath(state_image->get()), check).status();
  if (status.ok()) return SavedVm{.stored_bytes = volume->stored_bytes()};
  // The error that is worth telling is the first one.
  if (!*had_ram) client->DeleteVolume(options.volume).IgnoreError();
  return status;
}

absl::StatusOr<DeviceState> FetchSavedVm(AdminClient* client, const std::string& volume) {
  const std::string name = StateVolumeName(volume);
  const absl::StatusOr<rpc::Volume> state = client->StatVolume(name);
  if (IsNoVolume(state.status())) {
    return absl::NotFoundError(absl::StrCat("there is no saved machine ", volume, " (no volume ",
                                            name, "); faultline vm save --volume=", volume,
                                            " makes one"));
  }
  if (!state.ok()) return state.status();
  if (state->size_bytes() > kMaxStateBytes) {
    return absl::DataLossError(absl::StrCat("volume ", name, " is too large for a device state"));
  }
  std::string image(state->size_bytes() + kPageSize, '\0');  // room for a page that is not whole
  absl::Status status = client->ExportVolume(name, [&](uint64_t, const rpc::PageBatch& batch) {
    const PageCount size = PageCount::CoveringBytes(state->size_bytes());
    if (auto count = CountPages(batch.runs(), size, size); !count.ok()) return count.status();
    return ForEachPage(
        batch,
        [&](PageIndex page, absl::string_view encoded) {
          std::byte* const slot = reinterpret_cast<std::byte*>(&image[page.byte_offset()]);
          const absl::StatusOr<PageBytes> bytes =
              DecodePage(page, encoded, MutablePageBytes(slot, kPageSize));
          if (bytes.ok() && bytes->data() != slot) memcpy(slot, bytes->data(), kPageSize);
          return bytes.status();
        },
        [](PageRange) { return absl::OkStatus(); });
  });
  if (!status.ok()) return status;
  absl::StatusOr<DeviceState> decoded = DecodeDeviceState(image, name);
  if (!decoded.ok()) return decoded.status();
  const absl::StatusOr<rpc::Volume> ram = client->StatVolume(volume);
  if (!ram.ok()) return ram.status();
  if (ram->size_bytes() != decoded->record.ram_bytes) {
    return absl::FailedPreconditionError(
        absl::StrCat("volume ", volume, " has ", FormatBytes(ram->size_bytes()), ", but volume ",
                     name, " is the state of a machine with ",
                     FormatBytes(decoded->record.ram_bytes), "; save the machine again"));
  }
  return decoded;
}

}  // namespace faultline
