// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_VM_SOURCE_LINK_H_
#define FAULTLINE_CLIENT_VM_SOURCE_LINK_H_

#include <absl/status/status.h>
#include <absl/strings/string_view.h>
#include <absl/time/time.h>

#include <optional>
#include <string>
#include <utility>

#include "client/vm/migration_channel.h"

namespace faultline {

// The destination's end of a migration. From "loaded" on the connection is made again where it
// breaks, until the source has heard all it has to. Not thread-safe.
class SourceLink {
 public:
  // `channel` is connected to `from`.
  SourceLink(MigrationChannel channel, std::string from)
      : channel_(std::move(channel)), from_(std::move(from)) {}

  // For what is said before "loaded".
  MigrationChannel& channel() { return *channel_; }
  // What the offer has told of itself.
  void Know(std::string volume, std::string offer) {
    volume_ = std::move(volume);
    id_ = std::move(offer);
  }

  // Says "loaded", and waits for "run". Where this fails the machine may not run.
  absl::Status AwaitRun(absl::Duration timeout, CheckFunction check);

  // Says "running", "complete" or "ended".
  void Say(const std::string& state);
  // To be called every now and then: makes the connection again, where it has broken. May block for
  // a moment.
  void Look();
  // Has the source hear the last word, for at most `patience`.
  void Finish(absl::Duration patience, CheckFunction check);
  // Says that it does not work, unless the connection is broken.
  void Fail(absl::string_view message);

 private:
  // FAILED_PRECONDITION where the source is there and does not want this machine, or is not there.
  absl::Status Reconnect(CheckFunction check);
  void Drop();

  std::optional<MigrationChannel> channel_;  // none: it broke
  const std::string from_;
  std::string volume_, id_;
  std::string state_;
  bool released_ = false;
  absl::Time try_again_ = absl::InfinitePast();
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_VM_SOURCE_LINK_H_
