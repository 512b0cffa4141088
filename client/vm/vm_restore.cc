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
  absl::Duration start, attach, load;
};

absl::Status LoadVm(IncomingVm& vm, const GuestMemory& memory, absl::string_view state,
                    Times* times) {
  const absl::Time begin = absl::Now();
  if (absl::Status status = vm.Attach(memory); !status.ok()) return status;
  const absl::Time attached = absl::Now();
  if (absl::Status status = vm.LoadDeviceState(state); !status.ok()) return status;
  if (absl::Status status = vm.Resume(); !status.ok()) return status;
  times->attach = attached - begin;
  times->load = absl::Now() - attached;
  return absl::OkStatus();
}

void SayResumed(const IncomingVm& vm, const GuestMemory& memory, const Times& times,
                const VmOutput& output) {
  const auto ms = [](absl::Duration time) { return absl::ToInt64Milliseconds(time); };
  output.Say("resumed",
             absl::StrCat("volume ", memory.volume, " runs in process ", vm.pid(), ", attachment ",
                          vm.attachment(), ", after ", ms(times.start + times.attach + times.load),
                          "ms (start of QEMU ", ms(times.start), "ms, handover ", ms(times.attach),
                          "ms, device state ", ms(times.load), "ms)"),
             {{"volume", memory.volume},
              {"pid", vm.pid()},
              {"attachment", vm.attachment()},
              {"start_seconds", absl::ToDoubleSeconds(times.start)},
              {"attach_seconds", absl::ToDoubleSeconds(times.attach)},
              {"load_seconds", absl::ToDoubleSeconds(times.load)}});
}

}  // namespace

absl::Status RestoreVm(const VmRestoreOptions& options, const VmOutput& output) {
  const EndSignals signals;
  const absl::StatusOr<QemuCommand> command = ParseQemuCommand(options.command);
  if (!command.ok()) return command.status();
  auto client = AdminClient::Create({.address = options.server});
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
  absl::StatusOr<std::unique_ptr<IncomingVm>> vm = IncomingVm::Start(*command, saved->record);
  if (!vm.ok()) return vm.status();
  times.start = absl::Now() - begin;
  if (absl::Status status = signals.Check(); !status.ok()) return status;
  if (absl::Status status = LoadVm(**vm, memory, saved->bytes, &times); !status.ok()) {
    return status;
  }
  SayResumed(**vm, memory, times, output);
  return WatchVm(**vm, signals,
                 {.drain = memory.drain.value_or(false),
                  .on_complete = [] {},
                  .on_look = [] {},
                  .stop_after = StopAfter(memory)},
                 output);
}

}  // namespace faultline
