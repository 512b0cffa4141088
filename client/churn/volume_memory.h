// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_CHURN_VOLUME_MEMORY_H_
#define FAULTLINE_CLIENT_CHURN_VOLUME_MEMORY_H_

#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "client/churn/operation.h"
#include "client/churn/pattern.h"
#include "client/churn/slot.h"
#include "client/lib/agent_connection.h"
#include "client/lib/failure.h"
#include "client/unique_fd.h"

namespace faultline::churn {

// Memory of this process whose content is a volume: one slot for each kSlotPages of it.
//
// Private memory is one mapping. Shared memory is one for each slot, with room in the object behind
// it that belongs to no other, so that growth shows nothing of another slot. (The agent cannot tell
// from an event what of a file such growth shows.)
class VolumeMemory {
 public:
  // Fresh memory for the first `pages` of the volume, a multiple of kSlotPages. Nothing is there
  // yet, but in a memfd some pages behind each slot, which hold Stamp::kFile.
  static Failure Map(MemoryKind kind, uint64_t pages, const Pattern& pattern, VolumeMemory* memory);

  // What is mapped now. The slots' user moves and unmaps it.
  const std::vector<Slot>& slots() const { return slots_; }
  int memfd() const { return memfd_.get(); }

  // The "mappings" of a handover.
  nlohmann::json Mappings() const;
  // Writes the volume's pages to it, instead of an agent.
  void FillWith(const Pattern& pattern) const;

 private:
  Failure MapSlot(MemoryKind kind, const Pattern& pattern, Slot* slot);

  MemoryKind kind_ = MemoryKind::kAnon;
  std::vector<Slot> slots_;
  UniqueFd memfd_;
};

// The memory's attachment to an agent, which fills it from here on. The process keeps the
// userfaultfd open, too: where the agent ends without a word, accesses wait, and are found to hang.
class AgentAttachment {
 public:
  enum class Drain { kNo, kYes };
  // The agent is left to call UFFDIO_API and UFFDIO_REGISTER, so that it may have fork events.
  static Failure Attach(const std::string& socket, const std::string& volume, Drain drain,
                        const VolumeMemory& memory, std::unique_ptr<AgentAttachment>* attachment);

  uint64_t id() const { return id_; }
  Failure Detach();

 private:
  AgentAttachment();

  AgentConnection connection_;
  UniqueFd uffd_;
  uint64_t id_ = 0;
};

}  // namespace faultline::churn

#endif  // FAULTLINE_CLIENT_CHURN_VOLUME_MEMORY_H_
