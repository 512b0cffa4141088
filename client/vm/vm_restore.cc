// SPDX-License-Identifier: Apache-2.0
#include "client/vm/vm_restore.h"

#include <absl/status/statusor.h>
#include <absl/strings/str_cat.h>
#include <absl/time/clock.h>
#include <absl/time/time.h>

#include <memory>
#include <utility>

#include "client/cli/agent_query.h"
#include "client/remote/admin_client.h"
#include "client/vm/end_signals.h"
#include "client/vm/incoming_vm.h"
#include "client/vm/vm_volumes.h"
#include "client/vm/vm_watch.h"

namespace faultline {
namespace {

constexpr absl::Duration kAgentTimeout = absl::Seconds(10);

// How long the steps took.
struct Times {
  absl::Duration start;  // of QEMU, and the handover of its RAM
  absl::Duration load;
};

void SayResumed(const IncomingVm& vm, const GuestMemory& memory, const Times& times,
                const VmOutput& output) {
  const auto ms = [](absl::Duration time) { return absl::ToInt64Milliseconds(time); };
  output.Say("resumed",
             absl::StrCat("volume ", memory.volume, " runs in process ", vm.pid(), ", attachment ",
                          vm.attachment(), ", after ", ms(times.start + times.load),
                          "ms (start of QEMU and handover ", ms(times.start), "ms, device state ",
                          ms(times.load), "ms)"),
             {{"volume", memory.volume},
              {"pid", vm.pid()},
              {"attachment", vm.attachment()},
              {"start_seconds", absl::ToDoubleSeconds(times.start)},
              {"load_seconds", absl::ToDoubleSeconds(times.load)}});
}

}  // namespace

absl::Status RestoreVm(const VmRestoreOptions& options, const VmOutput& output) {
  const EndSignals signals;
  const absl::StatusOr<QemuCommand> command = ParseQemuCommand(options.command);
  if (!command.ok()) return command.status();
  auto client = AdminClient::Create({.address = options.server, .tls = options.tls});
  if (!client.ok()) return client.status();
  const absl::StatusOr<DeviceState> saved = FetchSavedVm(client->get(), options.memory.volume);
  if (!saved.ok()) return saved.status();
  // Before QEMU is started: an agent that is not there is not QEMU's matter.
  const auto agent =
      QueryAgent(options.memory.agent_socket, R"({"query":"attachments"})", kAgentTimeout);
  if (!agent.ok()) return agent.status();

  GuestMemory memory = options.memory;
  memory.ram_bytes = saved->record.ram_bytes;
  Times times;
  const absl::Time begin = absl::Now();
  absl::StatusOr<std::unique_ptr<IncomingVm>> vm =
      IncomingVm::Start(*command, saved->record, &memory);
  if (!vm.ok()) return vm.status();
  times.start = absl::Now() - begin;
  if (absl::Status status = signals.Check(); !status.ok()) return status;
  const absl::Time started = absl::Now();
  if (absl::Status status = (*vm)->LoadDeviceState(saved->bytes); !status.ok()) return status;
  if (absl::Status status = (*vm)->Resume(); !status.ok()) return status;
  times.load = absl::Now() - started;
  SayResumed(**vm, memory, times, output);
  return WatchVm(**vm, signals,
                 {.drain = memory.drain.value_or(false),
                  .on_complete = [] {},
                  .on_look = [] {},
                  .stop_after = StopAfter(memory)},
                 output);
}

}  // namespace faultline
