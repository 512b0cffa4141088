// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_VM_MEMORY_ATTACHER_H_
#define FAULTLINE_CLIENT_VM_MEMORY_ATTACHER_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>
#include <absl/time/time.h>
#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "client/attachment.h"

namespace faultline {

// What becomes of a machine whose pages do not come.
enum class VmFaultPolicy {
  kStop,    // it is stopped after the deadline, and goes on when they come
  kWait,    // it waits for ever
  kPoison,  // the access gets SIGBUS, of which QEMU ends
  kKill,    // QEMU gets SIGKILL
};

// Parses "stop", "wait", "poison" or "kill".
absl::StatusOr<VmFaultPolicy> ParseVmFaultPolicy(absl::string_view name);

// Which memory is to be served, and how.
struct GuestMemory {
  std::string agent_socket;
  std::string volume;
  uint64_t ram_bytes = 0;
  // As the keys of a handover (handover_message.h); nothing: as the agent's flags say.
  std::optional<bool> drain;
  std::string prefetch;
  std::string working_set;
  std::vector<uint64_t> first_pages;
  VmFaultPolicy fault_policy = VmFaultPolicy::kStop;
  absl::Duration fault_deadline = absl::Seconds(60);
};

// When the machine is to be stopped over a page that does not come.
inline absl::Duration StopAfter(const GuestMemory& memory) {
  return memory.fault_policy == VmFaultPolicy::kStop ? memory.fault_deadline
                                                     : absl::InfiniteDuration();
}

// A way by which the RAM of a QEMU that is about to be started reaches an agent. For one QEMU,
// which it must outlive; not thread-safe.
class MemoryAttacher {
 public:
  virtual ~MemoryAttacher() = default;

  // When the RAM is handed over.
  enum class When {
    kAtOnce,  // before QEMU can touch it, while it starts: what the volume holds is final
    kLater,   // some time after it has started, before it touches the RAM
  };

  // Sets what QEMU is to be started with, as variables of its environment.
  virtual absl::Status Prepare(When when, std::vector<std::string>* environment) = 0;

  // Has the agent serve the RAM of the QEMU that was started from that and waits for its device
  // state (-incoming defer). From here on its pages are those of the volume: whatever is to be in
  // it must be there. FAILED_PRECONDITION, saying what to change, where the RAM is not to be found
  // or is not empty any more; else what the agent says.
  virtual absl::StatusOr<AttachmentId> Attach(const GuestMemory& memory) = 0;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_VM_MEMORY_ATTACHER_H_
