// SPDX-License-Identifier: Apache-2.0
#include "client/vm/vm_offer.h"

#include <absl/status/statusor.h>
#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <absl/time/clock.h>
#include <absl/time/time.h>

#include <memory>
#include <optional>
#include <utility>

#include "client/remote/admin_client.h"
#include "client/vm/end_signals.h"
#include "client/vm/guest_ram.h"
#include "client/vm/migration_channel.h"
#include "client/vm/qemu.h"
#include "client/vm/qmp_client.h"
#include "client/vm/sibling_daemon.h"
#include "client/vm/vm_record.h"

namespace faultline {
namespace {

using nlohmann::ordered_json;

constexpr absl::Duration kQmpTimeout = absl::Seconds(30);
// Of a step of the other end: it starts a QEMU, or loads a state whose pages it has to fetch.
constexpr absl::Duration kStepTimeout = absl::Minutes(5);
constexpr absl::Duration kLookInterval = absl::Milliseconds(200);

// Where the page server listens.
std::string PagesListenAddress(const VmOfferOptions& options) {
  if (!options.pages.empty()) return options.pages;
  if (absl::StartsWith(options.listen, "unix:")) return absl::StrCat(options.listen, ".pages");
  return absl::StrCat(options.listen.substr(0, options.listen.rfind(':')), ":0");
}

// The address as the other end is told it: on the host that it has connected to.
std::string PagesToldAddress(const VmOfferOptions& options, const std::string& listening) {
  if (!options.pages.empty() || absl::StartsWith(listening, "unix:")) return listening;
  return listening.substr(listening.rfind(':'));
}

// The machine while it is offered.
class Offer {
 public:
  Offer(const VmOfferOptions& options, const VmOutput& output, const EndSignals& signals)
      : options_(options), output_(output), signals_(signals) {}

  // Everything that can be found out, and started, while the machine runs.
  absl::Status Prepare();
  // Up to the word to run, after which the machine is the other end's.
  absl::Status HandOver();
  // What is to be done where one of the two fails; returns its error.
  absl::Status GiveUp(absl::Status status);
  // Serves the RAM until the other end has it, and then has QEMU quit.
  absl::Status ServeOut();

 private:
  absl::Status StopAndSend();
  absl::Status Check() const { return signals_.Check(); }
  absl::Status Lost(absl::string_view reason) const;

  const VmOfferOptions& options_;
  const VmOutput& output_;
  const EndSignals& signals_;
  std::unique_ptr<Qemu> qemu_;
  VmRecord record_;
  SiblingDaemon pages_;
  std::string volume_;
  std::optional<MigrationChannel> channel_;
  bool was_running_ = false;
  bool stopped_ = false;
  absl::Time stopped_at_;
};

absl::Status Offer::Prepare() {
  auto qmp = QmpClient::Connect(options_.qmp, kQmpTimeout);
  if (!qmp.ok()) return qmp.status();
  qemu_ = std::make_unique<Qemu>(*std::move(qmp));
  absl::StatusOr<VmRecord> record = qemu_->Describe();
  if (!record.ok()) return record.status();
  record_ = *std::move(record);
  if (absl::Status status = qemu_->CheckRamIsShared(record_); !status.ok()) return status;
  const absl::StatusOr<std::string> ram = FindSharedMemoryFile(qemu_->pid(), record_.ram_bytes);
  if (!ram.ok()) return ram.status();
  // Nothing asks it for a page before the machine is stopped: until then they would change.
  absl::StatusOr<SiblingDaemon> pages =
      SiblingDaemon::StartServer({absl::StrCat("--listen=", PagesListenAddress(options_)),
                                  absl::StrCat("--store=file:", *ram)});
  if (!pages.ok()) return pages.status();
  pages_ = *std::move(pages);
  auto client = AdminClient::Create({.address = pages_.address()});
  if (!client.ok()) return client.status();
  const auto volumes = (*client)->ListVolumes();
  if (!volumes.ok()) return volumes.status();
  if (volumes->size() != 1) return absl::InternalError("the page server does not serve the RAM");
  volume_ = (*volumes)[0].name();
  return absl::OkStatus();
}

absl::Status Offer::HandOver() {
  absl::StatusOr<MigrationChannel> channel = AcceptMigration(
      options_.listen, [&] { return Check(); },
      [&](const std::string& address) {
        output_.Say(
            "listening",
            absl::StrCat("the machine is offered at ", address, ", and runs until it is taken"),
            {{"address", address}});
      });
  if (!channel.ok()) return channel.status();
  channel_ = *std::move(channel);
  const auto check = [&] { return Check(); };
  auto hello = channel_->Receive("hello", kStepTimeout, check);
  if (!hello.ok()) return hello.status();
  if (hello->value("version", ordered_json()) != 1) {
    return absl::FailedPreconditionError("the other end is of another version");
  }
  const absl::StatusOr<bool> running = qemu_->IsRunning();
  if (!running.ok()) return running.status();
  was_running_ = *running;
  absl::Status status = channel_->Send({{"type", "machine"},
                                        {"record", VmRecordToJson(record_)},
                                        {"paused", !was_running_},
                                        {"pages", PagesToldAddress(options_, pages_.address())},
                                        {"volume", volume_}});
  if (!status.ok()) return status;
  if (status = channel_->Receive("ready", kStepTimeout, check).status(); !status.ok())
    return status;
  if (status = StopAndSend(); !status.ok()) return status;
  if (status = channel_->Receive("loaded", kStepTimeout, check).status(); !status.ok()) {
    return status;
  }
  // Whether it arrives or not: from here on the other end may run the machine.
  channel_->Send({{"type", "run"}}).IgnoreError();
  return absl::OkStatus();
}

absl::Status Offer::StopAndSend() {
  stopped_at_ = absl::Now();
  stopped_ = true;
  if (absl::Status status = qemu_->Stop(); !status.ok()) return status;
  const absl::StatusOr<UniqueFd> file = qemu_->SaveDeviceState();
  if (!file.ok()) return file.status();
  const absl::StatusOr<std::string> state = ReadDeviceState(file->get());
  if (!state.ok()) return state.status();
  absl::Status status = channel_->Send({{"type", "state"}, {"bytes", state->size()}});
  return status.ok() ? channel_->SendBytes(*state) : status;
}

absl::Status Offer::GiveUp(absl::Status status) {
  if (channel_) {
    channel_->Send({{"type", "failed"}, {"message", std::string(status.message())}}).IgnoreError();
  }
  if (!stopped_ || !was_running_) return status;
  const absl::Status continued = qemu_->Continue();
  return absl::Status(
      status.code(),
      absl::StrCat(
          status.message(), "; the machine ",
          continued.ok() ? "goes on here" : absl::StrCat("stays paused: ", continued.message())));
}

absl::Status Offer::Lost(absl::string_view reason) const {
  return absl::DataLossError(absl::StrCat(
      reason,
      " before all of the RAM was fetched; the machine may have run there, so the source "
      "stays paused: continue it (QEMU's \"cont\") only if what it has done there does not "
      "matter"));
}

absl::Status Offer::ServeOut() {
  bool warned = false;
  bool connected = true;
  while (true) {
    absl::StatusOr<ordered_json> message = absl::DeadlineExceededError("");
    if (connected) {
      message = channel_->ReceiveAny(kLookInterval, [] { return absl::OkStatus(); });
    }
    if (message.ok() && (*message)["type"] == "running") {
      const absl::Duration down = absl::Now() - stopped_at_;
      output_.Say("running",
                  absl::StrCat("the machine runs at the other end; it was down for ",
                               absl::ToInt64Milliseconds(down), "ms; its RAM is served from here"),
                  {{"down_seconds", absl::ToDoubleSeconds(down)}});
    } else if (message.ok()) {
      const bool complete = (*message)["type"] == "complete";
      if (!complete && (*message)["type"] != "ended") return Lost("the other end failed");
      if (absl::Status status = qemu_->Quit(); !status.ok()) return status;
      output_.Say("released", complete ? "the other end has everything; the source has quit"
                                       : "the machine has ended; the source has quit");
      return absl::OkStatus();
    } else if (absl::IsUnavailable(message.status())) {
      return Lost("the other end was killed");
    } else if (!absl::IsDeadlineExceeded(message.status())) {
      connected = false;
      output_.Say("broken", absl::StrCat(message.status().message(),
                                         "; pages are served on, until a signal ends this"));
    }
    if (!signals_.Wait(connected ? absl::ZeroDuration() : kLookInterval)) continue;
    if (warned) return Lost("ended by a second signal");
    warned = true;
    output_.Say("needed",
                "the other end still needs pages; a second signal ends this all the same");
  }
}

}  // namespace

absl::Status OfferVm(const VmOfferOptions& options, const VmOutput& output) {
  const EndSignals signals;
  Offer offer(options, output, signals);
  absl::Status status = offer.Prepare();
  if (status.ok()) status = offer.HandOver();
  return status.ok() ? offer.ServeOut() : offer.GiveUp(status);
}

}  // namespace faultline
