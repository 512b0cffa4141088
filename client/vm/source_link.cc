// SPDX-License-Identifier: Apache-2.0
#include "client/vm/source_link.h"

#include <absl/strings/str_cat.h>
#include <absl/time/clock.h>

#include <utility>

namespace faultline {
namespace {

using nlohmann::ordered_json;

constexpr absl::Duration kConnectTimeout = absl::Seconds(1);
constexpr absl::Duration kAnswerTimeout = absl::Seconds(2);
constexpr absl::Duration kRetryInterval = absl::Seconds(1);

absl::Status NoSignalEnds() { return absl::OkStatus(); }

}  // namespace

absl::Status SourceLink::Reconnect(CheckFunction check) {
  try_again_ = absl::Now() + kRetryInterval;
  absl::StatusOr<MigrationChannel> channel = ConnectMigration(from_, kConnectTimeout);
  if (!channel.ok()) return channel.status();
  absl::Status status =
      channel->Send({{"type", "again"}, {"volume", volume_}, {"offer", id_}, {"state", state_}});
  if (status.ok()) status = channel->Receive("run", kAnswerTimeout, check).status();
  if (!status.ok()) return status;
  channel_ = *std::move(channel);
  return absl::OkStatus();
}

void SourceLink::Drop() {
  if (channel_) channel_->Abandon();
  channel_.reset();
}

absl::Status SourceLink::AwaitRun(absl::Duration timeout, CheckFunction check) {
  const absl::Time deadline = absl::Now() + timeout;
  state_ = "loaded";
  absl::Status status = channel_->Send({{"type", state_}});
  if (status.ok()) status = channel_->Receive("run", timeout, check).status();
  // The source may have said it into a connection that broke.
  while (absl::IsAborted(status) || absl::IsUnavailable(status) ||
         absl::IsDeadlineExceeded(status)) {
    Drop();
    if (absl::Now() >= deadline) return status;
    if (absl::Status ended = check(); !ended.ok()) return ended;
    absl::SleepFor(try_again_ - absl::Now());
    status = Reconnect(check);
  }
  return status;
}

void SourceLink::Say(const std::string& state) {
  state_ = state;
  if (channel_ && !channel_->Send({{"type", state_}}).ok()) Drop();
}

void SourceLink::Fail(absl::string_view message) {
  if (channel_)
    channel_->Send({{"type", "failed"}, {"message", std::string(message)}}).IgnoreError();
}

void SourceLink::Look() {
  if (released_) return;
  if (!channel_) {
    if (absl::Now() >= try_again_) Reconnect(NoSignalEnds).IgnoreError();
    return;
  }
  const auto message = channel_->ReceiveAny(absl::ZeroDuration(), NoSignalEnds);
  if (message.ok()) {
    released_ = (*message)["type"] == "released";
  } else if (!absl::IsDeadlineExceeded(message.status())) {
    Drop();
  }
}

void SourceLink::Finish(absl::Duration patience, CheckFunction check) {
  const absl::Time deadline = absl::Now() + patience;
  while (!released_ && absl::Now() < deadline && check().ok()) {
    Look();
    absl::SleepFor(absl::Milliseconds(20));
  }
}

}  // namespace faultline
