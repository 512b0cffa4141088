// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_EVICT_FAR_COMMAND_H_
#define FAULTLINE_CLIENT_EVICT_FAR_COMMAND_H_

#include <absl/functional/any_invocable.h>
#include <absl/status/status.h>
#include <absl/time/time.h>

#include <string>

#include "proto/page.h"

namespace faultline {

// What the owner of far memory asks for while it uses it.
struct FarCommand {
  enum class Kind {
    kWillNeed,     // fetch what is not here of `pages`, behind all faults, as far as there is room
    kWillNotNeed,  // these pages leave first, once there is need
    kPin,          // fetch all of `pages`; they stay. All, or none and an error
    kUnpin,
    kFlush,       // what was written before this is written to the volume
    kCheckpoint,  // the volume's snapshot `snapshot` has the memory as it was at one moment
  };

  Kind kind = Kind::kFlush;
  PageRange pages;       // of the volume; not of the last two
  std::string snapshot;  // the new name
  // What is not done by then fails, with what has held it up.
  absl::Time deadline = absl::InfiniteFuture();
};

// Called once, on any thread; it must not block.
using FarDone = absl::AnyInvocable<void(const absl::Status&)>;

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_EVICT_FAR_COMMAND_H_
