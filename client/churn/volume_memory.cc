// SPDX-License-Identifier: Apache-2.0
#include "client/churn/volume_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <string>

#include <nlohmann/json.hpp>

#include "client/lib/open_userfaultfd.h"

namespace faultline::churn {
namespace {

constexpr auto kAgentTimeout = std::chrono::seconds(30);
// Pages of a memfd that are there before any agent, behind each slot.
constexpr uint32_t kFilePages = 8;

Failure MapFresh(uint64_t bytes, int flags, int fd, off_t offset, uint64_t* address) {
  void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, fd, offset);
  if (at == MAP_FAILED) return SystemFailure("cannot map " + std::to_string(bytes) + " bytes");
  // Single pages come and go: a huge one would be split again and again.
  madvise(at, bytes, MADV_NOHUGEPAGE);
  *address = reinterpret_cast<uint64_t>(at);
  return Success();
}

}  // namespace

Failure VolumeMemory::Map(MemoryKind kind, uint64_t pages, const Pattern& pattern,
                          VolumeMemory* memory) {
  memory->kind_ = kind;
  memory->slots_.resize(pages / kSlotPages);
  uint64_t address = 0;
  if (kind == MemoryKind::kAnon) {
    Failure failure =
        MapFresh(pages * kPageSize, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0, &address);
    if (!failure.ok()) return failure;
  }
  if (kind == MemoryKind::kMemfd) {
    memory->memfd_.reset(memfd_create("faultline-churn", MFD_CLOEXEC));
    const uint64_t bytes = memory->slots_.size() * kMaxSlotPages * kPageSize;
    if (!memory->memfd_ || ftruncate(memory->memfd_.get(), static_cast<off_t>(bytes)) != 0) {
      return SystemFailure("cannot make a memfd");
    }
  }
  for (size_t i = 0; i < memory->slots_.size(); ++i) {
    Slot& slot = memory->slots_[i];
    slot.id = i;
    slot.pages = kSlotPages;
    for (uint32_t page = 0; page < kSlotPages; ++page) {
      slot.shadows[page] = PageShadow({.kind = Stamp::kVolume, .number = i * kSlotPages + page});
    }
    slot.address = address + i * kSlotPages * kPageSize;
    if (kind == MemoryKind::kAnon) continue;
    if (Failure failure = memory->MapSlot(kind, pattern, &slot); !failure.ok()) return failure;
  }
  return Success();
}

// Shared memory. All of a shmem object is mapped at first, so that it gets its size.
Failure VolumeMemory::MapSlot(MemoryKind kind, const Pattern& pattern, Slot* slot) {
  constexpr uint64_t kObjectBytes = kMaxSlotPages * kPageSize;
  constexpr uint64_t kSlotBytes = kSlotPages * kPageSize;
  if (kind == MemoryKind::kShmem) {
    Failure failure = MapFresh(kObjectBytes, MAP_SHARED | MAP_ANONYMOUS, -1, 0, &slot->address);
    if (!failure.ok()) return failure;
    munmap(reinterpret_cast<void*>(slot->address + kSlotBytes), kObjectBytes - kSlotBytes);
    return Success();
  }
  slot->file_page = slot->id * kMaxSlotPages;
  for (uint32_t page = kSlotPages; page < kSlotPages + kFilePages; ++page) {
    const Stamp stamp{.kind = Stamp::kFile, .number = slot->file_page + page};
    std::byte bytes[kPageSize];
    pattern.Fill(stamp, bytes);
    if (pwrite(memfd_.get(), bytes, sizeof bytes, static_cast<off_t>(stamp.number * kPageSize)) !=
        sizeof bytes) {
      return SystemFailure("cannot write to a memfd");
    }
    slot->shadows[page] = PageShadow(stamp);
  }
  return MapFresh(kSlotBytes, MAP_SHARED, memfd_.get(),
                  static_cast<off_t>(slot->file_page * kPageSize), &slot->address);
}

nlohmann::json VolumeMemory::Mappings() const {
  nlohmann::json mappings = nlohmann::json::array();
  const auto add = [&](uint64_t address, uint64_t pages, uint64_t offset) {
    mappings.push_back({{"base_host_virt_addr", address},
                        {"size", pages * kPageSize},
                        {"offset", offset * kPageSize},
                        {"page_size", kPageSize}});
  };
  if (kind_ == MemoryKind::kAnon) {
    add(slots_[0].address, slots_.size() * kSlotPages, 0);
  } else {
    for (const Slot& slot : slots_) add(slot.address, kSlotPages, slot.id * kSlotPages);
  }
  return mappings;
}

void VolumeMemory::FillWith(const Pattern& pattern) const {
  for (const Slot& slot : slots_) {
    for (uint32_t page = 0; page < kSlotPages; ++page) {
      pattern.Fill({.kind = Stamp::kVolume, .number = slot.id * kSlotPages + page},
                   reinterpret_cast<std::byte*>(slot.AddressOf(page)));
    }
  }
}

AgentAttachment::AgentAttachment() : connection_(kAgentTimeout) {}

Failure AgentAttachment::Attach(const std::string& socket, const std::string& volume, Drain drain,
                                const VolumeMemory& memory,
                                std::unique_ptr<AgentAttachment>* attachment) {
  auto made = std::unique_ptr<AgentAttachment>(new AgentAttachment);
  Failure failure = made->connection_.Connect(socket);
  if (failure.ok()) failure = OpenUserfaultfd(&made->uffd_);
  if (!failure.ok()) return failure;
  nlohmann::json request = {
      {"volume", volume}, {"mappings", memory.Mappings()}, {"register", true}};
  request["drain"] = drain == Drain::kYes;
  nlohmann::json answer;
  failure = made->connection_.Ask(request, {made->uffd_.get()}, &answer);
  if (!failure.ok()) return failure;
  made->id_ = answer.value("attachment", uint64_t{0});
  *attachment = std::move(made);
  return Success();
}

Failure AgentAttachment::Detach() { return connection_.Detach(id_, kAgentTimeout); }

}  // namespace faultline::churn
