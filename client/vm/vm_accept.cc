// SPDX-License-Identifier: Apache-2.0
#include "client/vm/vm_accept.h"

#include <absl/status/statusor.h>
#include <absl/strings/str_cat.h>
#include <absl/time/clock.h>
#include <absl/time/time.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "client/bench/local_stack.h"
#include "client/cli/agent_query.h"
#include "client/vm/end_signals.h"
#include "client/vm/incoming_vm.h"
#include "client/vm/migration_channel.h"
#include "client/vm/sibling_daemon.h"
#include "client/vm/source_link.h"
#include "client/vm/vm_record.h"
#include "client/vm/vm_watch.h"

namespace faultline {
namespace {

using nlohmann::ordered_json;

constexpr int kVersion = 3;
constexpr absl::Duration kAgentTimeout = absl::Seconds(20);
constexpr absl::Duration kStepTimeout = absl::Minutes(5);
constexpr absl::Duration kConnectTimeout = absl::Seconds(10);
// For the source to hear that it is not needed any more.
constexpr absl::Duration kFinishPatience = absl::Seconds(10);
constexpr uint64_t kMaxStateBytes = uint64_t{4} << 30;

// What is offered.
struct OfferedVm {
  VmRecord record;
  bool paused = false;
  std::string pages, volume, id;
};

absl::StatusOr<OfferedVm> ParseOffer(const ordered_json& message, const std::string& from) {
  absl::StatusOr<VmRecord> record = ParseVmRecord(message.value("record", ordered_json()));
  if (!record.ok()) return record.status();
  const ordered_json paused = message.value("paused", ordered_json());
  const ordered_json pages = message.value("pages", ordered_json());
  const ordered_json volume = message.value("volume", ordered_json());
  const ordered_json id = message.value("offer", ordered_json());
  if (!paused.is_boolean() || !pages.is_string() || !volume.is_string() || !id.is_string()) {
    return absl::FailedPreconditionError("what is offered is of another version");
  }
  return OfferedVm{.record = *std::move(record),
                   .paused = paused.get<bool>(),
                   .pages = PagesAddress(pages.get<std::string>(), from),
                   .volume = volume.get<std::string>(),
                   .id = id.get<std::string>()};
}

// In the order of destruction, reversed: QEMU ends before the agent that serves it.
struct Destination {
  std::unique_ptr<TemporaryDirectory> directory;
  SiblingDaemon agent;
  std::unique_ptr<IncomingVm> vm;
};

absl::Status StartDestination(const QemuCommand& command, const OfferedVm& offered,
                              GuestMemory* memory, Destination* destination) {
  absl::StatusOr<TemporaryDirectory> directory = TemporaryDirectory::Create("/tmp");
  if (!directory.ok()) return directory.status();
  destination->directory = std::make_unique<TemporaryDirectory>(*std::move(directory));
  memory->agent_socket = destination->directory->path() + "/agent.sock";
  memory->volume = offered.volume;
  memory->ram_bytes = offered.record.ram_bytes;
  absl::StatusOr<SiblingDaemon> agent = SiblingDaemon::StartAgent(
      {absl::StrCat("--server=", offered.pages), absl::StrCat("--socket=", memory->agent_socket)},
      memory->agent_socket);
  if (!agent.ok()) return agent.status();
  destination->agent = *std::move(agent);
  QemuCommand started = command;
  started.paused = command.paused || offered.paused;
  absl::StatusOr<std::unique_ptr<IncomingVm>> vm = IncomingVm::Start(started, offered.record);
  if (!vm.ok()) return vm.status();
  destination->vm = *std::move(vm);
  // The agent connects to the page server now, while the source runs, and not when it has stopped.
  const ordered_json query = {{"query", "volume"}, {"volume", memory->volume}};
  return QueryAgent(memory->agent_socket, query.dump(), kAgentTimeout).status();
}

// How long the steps took.
struct Times {
  absl::Duration stop;    // from "ready" to the source having stopped
  absl::Duration attach;  // handing the RAM over
  absl::Duration state;   // from there to the device state being here
  absl::Duration load;    // loading the device state
};

absl::Status ParseFirstPages(const ordered_json& stopped, GuestMemory* memory) {
  const ordered_json first = stopped.value("first", ordered_json());
  const bool numbers =
      first.is_array() && std::all_of(first.begin(), first.end(),
                                      [](auto& number) { return number.is_number_unsigned(); });
  if (!numbers) return absl::FailedPreconditionError("the pages to be fetched first are none");
  memory->first_pages = first.get<std::vector<uint64_t>>();
  return absl::OkStatus();
}

// From "ready" to what comes before "loaded".
absl::Status TakeOver(MigrationChannel& channel, IncomingVm& vm, GuestMemory* memory,
                      CheckFunction check, Times* times) {
  const absl::Time begin = absl::Now();
  absl::Status status = channel.Send({{"type", "ready"}});
  if (!status.ok()) return status;
  // Only when the source is stopped: what is fetched before it is, is not what it will be.
  absl::StatusOr<ordered_json> stopped = channel.Receive("stopped", kStepTimeout, check);
  if (!stopped.ok()) return stopped.status();
  const absl::Time stopped_at = absl::Now();
  times->stop = stopped_at - begin;
  if (status = ParseFirstPages(*stopped, memory); !status.ok()) return status;
  if (status = vm.Attach(*memory); !status.ok()) return status;
  const absl::Time attached = absl::Now();
  times->attach = attached - stopped_at;
  absl::StatusOr<ordered_json> announced = channel.Receive("state", kStepTimeout, check);
  if (!announced.ok()) return announced.status();
  const ordered_json bytes = announced->value("bytes", ordered_json());
  if (!bytes.is_number_unsigned() || bytes.get<uint64_t>() > kMaxStateBytes) {
    return absl::FailedPreconditionError("the device state has no size that one can have");
  }
  const absl::StatusOr<std::string> state =
      channel.ReceiveBytes(bytes.get<uint64_t>(), kStepTimeout, check);
  if (!state.ok()) return state.status();
  const absl::Time received = absl::Now();
  times->state = received - attached;
  if (status = vm.LoadDeviceState(*state); !status.ok()) return status;
  times->load = absl::Now() - received;
  return absl::OkStatus();
}

// Sees to it that there is an agent: without one the machine waits.
void KeepAgent(SiblingDaemon& agent, const VmOutput& output) {
  if (agent.running()) return;
  output.Say("agent_ended", absl::StrCat("the agent has ended, another takes its place; its log "
                                         "ends with:\n",
                                         agent.Log()));
  const absl::Status status = agent.RestartAgent();
  output.Say("agent_restarted",
             status.ok() ? "the agent was started again" : std::string(status.message()));
}

// The machine is this end's.
absl::Status Run(Destination& destination, const GuestMemory& memory, const std::string& pages,
                 const Times& times, SourceLink& source, const EndSignals& signals,
                 const VmOutput& output) {
  IncomingVm& vm = *destination.vm;
  if (absl::Status status = vm.Resume(); !status.ok()) return status;
  source.Say("running");
  output.Say("running",
             absl::StrCat("the machine runs in process ", vm.pid(), "; its RAM comes from ", pages),
             {{"pid", vm.pid()},
              {"pages", pages},
              {"socket", memory.agent_socket},
              {"stop_seconds", absl::ToDoubleSeconds(times.stop)},
              {"attach_seconds", absl::ToDoubleSeconds(times.attach)},
              {"state_seconds", absl::ToDoubleSeconds(times.state)},
              {"load_seconds", absl::ToDoubleSeconds(times.load)}});
  bool complete = false;
  const absl::Status status = WatchVm(vm, signals,
                                      {.drain = memory.drain.value_or(false),
                                       .on_complete =
                                           [&] {
                                             complete = true;
                                             source.Say("complete");
                                           },
                                       .on_look =
                                           [&] {
                                             source.Look();
                                             KeepAgent(destination.agent, output);
                                           },
                                       .stop_after = StopAfter(memory)},
                                      output);
  if (!complete && status.ok()) source.Say("ended");
  if (complete || status.ok()) source.Finish(kFinishPatience, [&] { return signals.Check(); });
  return status;
}

absl::Status Accept(const VmAcceptOptions& options, const VmOutput& output,
                    const EndSignals& signals, SourceLink& source) {
  const absl::StatusOr<QemuCommand> command = ParseQemuCommand(options.command);
  if (!command.ok()) return command.status();
  const auto check = [&] { return signals.Check(); };
  MigrationChannel& channel = source.channel();
  absl::Status status = channel.Send({{"type", "hello"}, {"version", kVersion}});
  if (!status.ok()) return status;
  const absl::StatusOr<ordered_json> message = channel.Receive("machine", kStepTimeout, check);
  if (!message.ok()) return message.status();
  const absl::StatusOr<OfferedVm> offered = ParseOffer(*message, options.from);
  if (!offered.ok()) return offered.status();
  source.Know(offered->volume, offered->id);
  GuestMemory memory = options.memory;
  Destination destination;
  status = StartDestination(*command, *offered, &memory, &destination);
  if (!status.ok()) return status;
  IncomingVm& vm = *destination.vm;
  Times times;
  if (status = TakeOver(channel, vm, &memory, check, &times); !status.ok()) return status;
  if (status = source.AwaitRun(kStepTimeout, check); !status.ok()) return status;
  return Run(destination, memory, offered->pages, times, source, signals, output);
}

}  // namespace

absl::Status AcceptVm(const VmAcceptOptions& options, const VmOutput& output) {
  const EndSignals signals;
  absl::StatusOr<MigrationChannel> channel = ConnectMigration(options.from, kConnectTimeout);
  if (!channel.ok()) return channel.status();
  SourceLink source(*std::move(channel), options.from);
  absl::Status status = Accept(options, output, signals, source);
  // By now no QEMU is left here that could run the machine.
  if (!status.ok()) source.Fail(status.message());
  return status;
}

}  // namespace faultline
