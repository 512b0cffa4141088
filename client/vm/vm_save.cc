// SPDX-License-Identifier: Apache-2.0
#include "client/vm/vm_save.h"

#include <absl/status/statusor.h>
#include <absl/strings/str_cat.h>
#include <absl/time/clock.h>
#include <absl/time/time.h>
#include <sys/stat.h>

#include <memory>
#include <utility>

#include "client/remote/admin_client.h"
#include "client/vm/end_signals.h"
#include "client/vm/guest_ram.h"
#include "client/vm/qemu.h"
#include "client/vm/qmp_client.h"
#include "proto/units.h"

namespace faultline {
namespace {

constexpr absl::Duration kQmpTimeout = absl::Seconds(30);

uint64_t SizeOf(int fd) {
  struct stat status {};
  return fstat(fd, &status) == 0 ? static_cast<uint64_t>(status.st_size) : 0;
}

std::string After(AfterSave after) {
  switch (after) {
    case AfterSave::kContinue:
      return "and goes on";
    case AfterSave::kQuit:
      return "and its QEMU has quit";
    case AfterSave::kPause:
      break;
  }
  return "and stays paused: QEMU's \"cont\" continues it";
}

absl::Status Finish(Qemu& qemu, AfterSave after) {
  switch (after) {
    case AfterSave::kContinue:
      return qemu.Continue();
    case AfterSave::kQuit:
      return qemu.Quit();
    case AfterSave::kPause:
      break;
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status SaveVm(const VmSaveOptions& options, const VmOutput& output) {
  const EndSignals signals;
  auto client = AdminClient::Create({.address = options.server, .tls = options.tls});
  if (!client.ok()) return client.status();
  absl::Status status = CheckVolumesAreFree(client->get(), options.store);
  if (!status.ok()) return status;
  auto qmp = QmpClient::Connect(options.qmp, kQmpTimeout);
  if (!qmp.ok()) return qmp.status();
  Qemu qemu(*std::move(qmp));
  const absl::StatusOr<VmRecord> record = qemu.Describe();
  if (!record.ok()) return record.status();
  if (status = qemu.CheckRamIsShared(*record); !status.ok()) return status;
  const absl::StatusOr<std::string> ram = FindSharedMemoryFile(qemu.pid(), record->ram_bytes);
  if (!ram.ok()) return ram.status();
  const absl::StatusOr<bool> was_running = qemu.IsRunning();
  if (!was_running.ok()) return was_running.status();

  const absl::Time stopped = absl::Now();
  if (status = qemu.Stop(); !status.ok()) return status;
  uint64_t state_bytes = 0;
  const auto store = [&]() -> absl::StatusOr<SavedVm> {
    const absl::StatusOr<UniqueFd> state = qemu.SaveDeviceState();
    if (!state.ok()) return state.status();
    state_bytes = SizeOf(state->get());
    return StoreVm(client->get(), options.store, *record, *ram, state->get(),
                   [&] { return signals.Check(); });
  };
  const absl::StatusOr<SavedVm> saved = store();
  if (!saved.ok()) {
    if (!*was_running) return saved.status();
    const absl::Status continued = qemu.Continue();
    return absl::Status(
        saved.status().code(),
        absl::StrCat(
            saved.status().message(), "; the machine ",
            continued.ok() ? "goes on" : absl::StrCat("stays paused: ", continued.message())));
  }
  if (status = Finish(qemu, options.after); !status.ok()) return status;
  const absl::Duration paused = absl::Now() - stopped;
  output.Say(
      "saved",
      absl::StrCat("saved as volume ", options.store.volume, " (RAM ",
                   FormatBytes(record->ram_bytes), ", ", FormatBytes(saved->stored_bytes),
                   " stored; device state ", FormatBytes(state_bytes), "); it was stopped for ",
                   absl::FormatDuration(absl::Trunc(paused, absl::Milliseconds(1))), ", ",
                   After(options.after)),
      {{"volume", options.store.volume},
       {"ram_bytes", record->ram_bytes},
       {"stored_bytes", saved->stored_bytes},
       {"state_bytes", state_bytes},
       {"stopped_seconds", absl::ToDoubleSeconds(paused)}});
  return absl::OkStatus();
}

}  // namespace faultline
