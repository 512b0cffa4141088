// SPDX-License-Identifier: Apache-2.0
#include "client/vm/vm_offer.h"

#include <absl/status/statusor.h>
#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <absl/time/clock.h>
#include <absl/time/time.h>

#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "client/vm/end_signals.h"
#include "client/vm/guest_ram.h"
#include "client/vm/hot_pages.h"
#include "client/vm/migration_channel.h"
#include "client/vm/qemu.h"
#include "client/vm/qmp_client.h"
#include "client/vm/ram_server.h"
#include "client/vm/vm_record.h"

namespace faultline {
namespace {

using nlohmann::ordered_json;

constexpr int kVersion = 3;
constexpr absl::Duration kQmpTimeout = absl::Seconds(30);
// Of a step of the other end: it starts a QEMU, or loads a state whose pages it has to fetch.
constexpr absl::Duration kStepTimeout = absl::Minutes(5);
// For the first words of who has connected.
constexpr absl::Duration kHelloTimeout = absl::Seconds(5);
constexpr absl::Duration kLookInterval = absl::Milliseconds(200);

// Where the page server listens.
std::string PagesListenAddress(const VmOfferOptions& options) {
  if (!options.pages.empty()) return options.pages;
  if (absl::StartsWith(options.listen, "unix:")) return absl::StrCat(options.listen, ".pages");
  return absl::StrCat(options.listen.substr(0, options.listen.rfind(':')), ":0");
}

std::string RandomText() {
  std::random_device random;
  return absl::StrCat(absl::Hex(random(), absl::kZeroPad8), absl::Hex(random(), absl::kZeroPad8));
}

std::string TextOf(const ordered_json& message, const char* key) {
  const ordered_json value = message.value(key, ordered_json());
  return value.is_string() ? value.get<std::string>() : "";
}

absl::Status NoSignalEnds() { return absl::OkStatus(); }

// The machine while it is offered.
class Offer {
 public:
  Offer(const VmOfferOptions& options, const VmOutput& output, const EndSignals& signals)
      : options_(options), output_(output), signals_(signals) {}

  // Everything that can be found out, and started, while the machine runs.
  absl::Status Prepare();
  // Up to the word to run, after which the machine is the other end's.
  absl::Status HandOver();
  // Instead of that, where it was the other end's already when an earlier offer was killed.
  absl::Status Resume();
  // What is to be done where one of them fails; returns its error.
  absl::Status GiveUp(absl::Status status);
  // Serves the RAM until the other end has it, and then has QEMU quit.
  absl::Status ServeOut();

 private:
  absl::Status AwaitHello();
  // Whatever is not known of them is no reason not to move.
  std::vector<uint64_t> FinishSampling(
      absl::StatusOr<std::unique_ptr<HotPageSampler>> sampler) const;
  absl::Status StopAndSend(const std::vector<uint64_t>& first);
  absl::Status Check() const { return signals_.Check(); }

  // Of ServeOut().
  void GreetAgain();
  absl::Status CheckAgain(const ordered_json& again) const;
  // Whether all is done, after what the other end has said or because it is gone.
  absl::StatusOr<bool> Listen();
  absl::StatusOr<bool> Hear(const std::string& state);
  absl::Status Release(bool complete);
  absl::Status Lost(absl::string_view reason) const;

  const VmOfferOptions& options_;
  const VmOutput& output_;
  const EndSignals& signals_;
  std::unique_ptr<Qemu> qemu_;
  VmRecord record_;
  std::string ram_;  // the file
  std::optional<RamServer> pages_;
  std::optional<MigrationListener> listener_;
  std::optional<MigrationChannel> channel_;  // none: it broke, and may be made again
  std::string id_;                           // of this offer; "": of one that was resumed
  bool was_running_ = false;
  bool stopped_ = false;
  bool told_running_ = false;
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
  absl::StatusOr<std::string> ram = FindSharedMemoryFile(qemu_->pid(), record_.ram_bytes);
  if (!ram.ok()) return ram.status();
  ram_ = *std::move(ram);
  absl::StatusOr<MigrationListener> listener = MigrationListener::Listen(options_.listen);
  if (!listener.ok()) return listener.status();
  listener_ = *std::move(listener);
  // Nothing asks it for a page before the machine is stopped: until then they would change.
  absl::StatusOr<RamServer> pages =
      RamServer::Start(qemu_->pid(), ram_, PagesListenAddress(options_));
  if (!pages.ok()) return pages.status();
  pages_ = *std::move(pages);
  return absl::OkStatus();
}

absl::Status Offer::AwaitHello() {
  output_.Say("listening",
              absl::StrCat("the machine is offered at ", listener_->address(),
                           ", and runs until it is taken"),
              {{"address", listener_->address()}});
  const auto check = [&] { return Check(); };
  while (true) {
    absl::StatusOr<MigrationChannel> channel = listener_->Accept(absl::InfiniteDuration(), check);
    if (!channel.ok()) return channel.status();
    const auto hello = channel->ReceiveAny(kHelloTimeout, check);
    if (absl::IsCancelled(hello.status())) return hello.status();
    // Who says nothing of the kind, or asks for a machine that was offered here before.
    if (!hello.ok() || (*hello)["type"] != "hello") {
      channel->Send({{"type", "failed"}, {"message", "no such machine is offered here"}})
          .IgnoreError();
      continue;
    }
    channel_ = *std::move(channel);
    if (hello->value("version", ordered_json()) == kVersion) return absl::OkStatus();
    return absl::FailedPreconditionError("the other end is of another version");
  }
}

absl::Status Offer::HandOver() {
  if (absl::Status status = AwaitHello(); !status.ok()) return status;
  const auto check = [&] { return Check(); };
  const absl::StatusOr<bool> running = qemu_->IsRunning();
  if (!running.ok()) return running.status();
  was_running_ = *running;
  id_ = RandomText();
  absl::Status status =
      channel_->Send({{"type", "machine"},
                      {"record", VmRecordToJson(record_)},
                      {"paused", !was_running_},
                      {"pages", PagesToldAddress(pages_->address(), options_.listen)},
                      {"volume", pages_->volume()},
                      {"offer", id_}});
  if (!status.ok()) return status;
  // While the other end starts its QEMU.
  auto sampler = HotPageSampler::Start(qemu_->pid(), ram_);
  if (status = channel_->Receive("ready", kStepTimeout, check).status(); !status.ok())
    return status;
  status = StopAndSend(FinishSampling(std::move(sampler)));
  if (!status.ok()) return status;
  if (status = channel_->Receive("loaded", kStepTimeout, check).status(); !status.ok()) {
    return status;
  }
  // Whether it arrives or not: from here on the other end may run the machine.
  channel_->Send({{"type", "run"}}).IgnoreError();
  return absl::OkStatus();
}

absl::Status Offer::Resume() {
  const absl::StatusOr<bool> running = qemu_->IsRunning();
  if (!running.ok()) return running.status();
  if (*running) {
    return absl::FailedPreconditionError(
        "the machine runs here, so nobody has taken it; offer it without --resume");
  }
  output_.Say("resumed",
              absl::StrCat("the RAM is served again at ", pages_->address(),
                           "; the other end is awaited at ", listener_->address()),
              {{"address", listener_->address()}, {"pages", pages_->address()}});
  return absl::OkStatus();
}

std::vector<uint64_t> Offer::FinishSampling(
    absl::StatusOr<std::unique_ptr<HotPageSampler>> sampler) const {
  const absl::StatusOr<PageSet> pages = sampler.ok() ? (*sampler)->Finish() : sampler.status();
  absl::StatusOr<std::vector<uint64_t>> runs = pages.ok() ? pages->EncodeRuns() : pages.status();
  if (runs.ok()) return *std::move(runs);
  output_.Say("hot_pages_unknown",
              absl::StrCat("which pages the machine uses all the time is not known (",
                           runs.status().message(),
                           "); they are not fetched before others, so it is slower at first"));
  return {};
}

absl::Status Offer::StopAndSend(const std::vector<uint64_t>& first) {
  stopped_at_ = absl::Now();
  stopped_ = true;
  absl::Status status = qemu_->Stop();
  if (!status.ok()) return status;
  status = channel_->Send({{"type", "stopped"}, {"first", first}});
  if (!status.ok()) return status;
  const absl::StatusOr<UniqueFd> file = qemu_->SaveDeviceState();
  if (!file.ok()) return file.status();
  const absl::StatusOr<std::string> state = ReadDeviceState(file->get());
  if (!state.ok()) return state.status();
  status = channel_->Send({{"type", "state"}, {"bytes", state->size()}});
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

absl::Status Offer::CheckAgain(const ordered_json& again) const {
  if (again["type"] != "again" || TextOf(again, "volume") != pages_->volume()) {
    return absl::NotFoundError("no such machine is offered here");
  }
  if (!id_.empty()) {
    if (TextOf(again, "offer") == id_) return absl::OkStatus();
    return absl::NotFoundError("this machine is offered to another");
  }
  const std::string state = TextOf(again, "state");
  if (state == "running" || state == "complete" || state == "ended") return absl::OkStatus();
  return absl::FailedPreconditionError("whether it may run the machine is not known here any more");
}

void Offer::GreetAgain() {
  absl::StatusOr<MigrationChannel> channel =
      listener_->Accept(channel_ ? absl::ZeroDuration() : kLookInterval, NoSignalEnds);
  if (!channel.ok()) return;
  const auto again = channel->ReceiveAny(kHelloTimeout, NoSignalEnds);
  if (!again.ok()) return;
  if (absl::Status status = CheckAgain(*again); !status.ok()) {
    channel->Send({{"type", "failed"}, {"message", std::string(status.message())}}).IgnoreError();
    return;
  }
  channel_ = *std::move(channel);
  channel_->Send({{"type", "run"}}).IgnoreError();
  output_.Say("connected", "the other end is back");
  channel_->Repeat({{"type", TextOf(*again, "state")}});
}

absl::Status Offer::Release(bool complete) {
  if (absl::Status status = qemu_->Quit(); !status.ok()) return status;
  channel_->Send({{"type", "released"}}).IgnoreError();
  output_.Say("released", complete ? "the other end has everything; the source has quit"
                                   : "the machine has ended; the source has quit");
  return absl::OkStatus();
}

absl::StatusOr<bool> Offer::Hear(const std::string& state) {
  if (state == "complete" || state == "ended") {
    const absl::Status status = Release(state == "complete");
    if (!status.ok()) return status;
    return true;
  }
  if (state != "running") {
    if (state == "loaded") return false;  // and has been told to run
    return Lost("the other end failed");
  }
  if (std::exchange(told_running_, true)) return false;
  ordered_json fields = {{"pages", pages_->address()}};
  std::string down;
  if (stopped_) {
    const absl::Duration time = absl::Now() - stopped_at_;
    fields["down_seconds"] = absl::ToDoubleSeconds(time);
    down = absl::StrCat("; it was down for ", absl::ToInt64Milliseconds(time), "ms");
  }
  output_.Say("running",
              absl::StrCat("the machine runs at the other end", down, "; its RAM is served at ",
                           pages_->address(),
                           " (should this command be killed: faultline vm offer "
                           "--resume --pages=",
                           pages_->address(), " with its other flags)"),
              fields);
  return false;
}

absl::StatusOr<bool> Offer::Listen() {
  if (!channel_) return false;
  const auto message = channel_->ReceiveAny(kLookInterval, NoSignalEnds);
  if (message.ok()) return Hear(TextOf(*message, "type"));
  if (absl::IsDeadlineExceeded(message.status())) return false;
  if (absl::IsUnavailable(message.status())) return Lost("the other end was killed");
  channel_->Abandon();
  channel_.reset();
  output_.Say("broken", absl::StrCat(message.status().message(),
                                     "; pages are served on, and the other end is awaited"));
  return false;
}

absl::Status Offer::ServeOut() {
  bool warned = false;
  while (true) {
    GreetAgain();
    const absl::StatusOr<bool> done = Listen();
    if (!done.ok() || *done) return done.status();
    if (absl::StatusOr<bool> restarted = pages_->KeepRunning(); !restarted.ok()) {
      output_.Say("pages_lost",
                  absl::StrCat("the RAM is not served: ", restarted.status().message()));
    } else if (*restarted) {
      output_.Say("pages_restarted", "the page server of the RAM had ended, and was started again");
    }
    if (!signals_.Wait(absl::ZeroDuration())) continue;
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
  if (status.ok()) status = options.resume ? offer.Resume() : offer.HandOver();
  return status.ok() ? offer.ServeOut() : offer.GiveUp(status);
}

}  // namespace faultline
