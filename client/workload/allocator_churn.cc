// SPDX-License-Identifier: Apache-2.0
//
// allocator-churn: blocks of malloc and mappings of mmap that are written, grown, shrunk, moved,
// discarded and freed, and children that are forked in between; everything is checked before it is
// changed.
//
// The memory is a fixed number of slots, each with at most one block. What happens to a slot
// follows from the seed and from what has happened to it before, not from the other slots: so it
// does not depend on the number of threads either. A block of malloc and one of mmap differ in how
// they come, grow and go.
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <vector>

#include "client/workload/work_context.h"

namespace faultline::workload {
namespace {

constexpr uint64_t kSlots = 64;
// Of the blocks of a thread, in a child of it.
constexpr uint64_t kCheckedOneOf = 7;

struct Block {
  std::byte* data = nullptr;
  uint64_t bytes = 0;  // a multiple of 8; of pages, where it is a mapping
  uint64_t stamp = 0;  // what it holds follows from that
  bool mapped = false;

  uint64_t words() const { return bytes / sizeof(uint64_t); }
};

struct Slot {
  Slot(uint64_t seed, uint64_t index) : random({seed, index}), number(index) {}

  Block block;
  churn::Random random;
  uint64_t number;
  uint64_t checksum = 0;
};

// Where a block is wrong. Plain data: it comes out of forked children through a pipe.
struct WrongWord {
  uint64_t slot = 0, index = 0, found = 0, expected = 0, bytes = 0;
  bool mapped = false;
};

class AllocatorChurn final : public Workload {
 public:
  explicit AllocatorChurn(WorkContext* context)
      : context_(*context),
        seed_(context->options().seed),
        most_bytes_(context->options().size_bytes / kSlots / kPageSize * kPageSize),
        steps_(*context->options().operations) {
    for (uint64_t number = 0; number < kSlots; ++number) slots_.emplace_back(seed_, number);
  }
  ~AllocatorChurn() override {
    for (Slot& slot : slots_) Free(&slot);
  }

  void Prepare(uint64_t round) override;
  uint64_t Work() override;
  uint64_t Verify() override;
  std::span<std::byte> Content() const override {
    const auto largest = std::max_element(
        slots_.begin(), slots_.end(),
        [](const Slot& a, const Slot& b) { return a.block.bytes < b.block.bytes; });
    return {largest->block.data, largest->block.bytes};
  }

 private:
  static uint64_t Word(uint64_t stamp, uint64_t index) { return churn::Mix(stamp + index); }
  uint64_t NewBytes(Slot* slot, bool mapped);
  static void Write(Block* block, uint64_t first_word);
  // Whether the words [first, end) are right; otherwise sets `*wrong`. Async-signal-safe.
  bool IsRight(const Slot& slot, uint64_t first, uint64_t end, WrongWord* wrong) const;
  void Report(const char* who, const WrongWord& wrong);
  // Of the whole block, in this process; adds to the slot's checksum.
  bool Check(Slot* slot);

  // Each leaves the slot with content that is right, or without a block, or has reported.
  void Step(Slot* slot, unsigned thread);
  void Allocate(Slot* slot);
  void Resize(Slot* slot);
  void Discard(Slot* slot);
  void Fork(Slot* slot, unsigned thread);
  void Free(Slot* slot);
  // Addresses that one thread has given up may be the next one's: the kernel orders that, but
  // ThreadSanitizer does not know mremap.
  void HandOverAddresses() { address_changes_.fetch_add(1, std::memory_order_acq_rel); }
  void ReportRefusal(const char* what, uint64_t bytes) {
    context_.ReportFailure(SystemFailure(std::string(what) + " of " + std::to_string(bytes) +
                                         " bytes; give a smaller --size"));
  }

  // In the child.
  [[noreturn]] void RunChild(Slot* slot, unsigned thread, int result);

  WorkContext& context_;
  const uint64_t seed_, most_bytes_, steps_;
  std::vector<Slot> slots_;
  std::atomic<uint64_t> address_changes_ = 0;
};

// Most blocks are large, so that the memory is about as full as it was asked for.
uint64_t AllocatorChurn::NewBytes(Slot* slot, bool mapped) {
  const uint64_t unit = mapped ? kPageSize : sizeof(uint64_t);
  const uint64_t most = slot->random.OneIn(4)
                            ? std::min<uint64_t>(most_bytes_, unit << slot->random.Below(12))
                            : most_bytes_;
  const uint64_t least = most == most_bytes_ ? most / 2 : unit;
  return slot->random.Between(least, most) / unit * unit;
}

void AllocatorChurn::Write(Block* block, uint64_t first_word) {
  for (uint64_t i = first_word; i < block->words(); ++i) {
    const uint64_t word = Word(block->stamp, i);
    memcpy(block->data + i * sizeof word, &word, sizeof word);
  }
}

bool AllocatorChurn::IsRight(const Slot& slot, uint64_t first, uint64_t end,
                             WrongWord* wrong) const {
  const Block& block = slot.block;
  for (uint64_t i = first; i < end; ++i) {
    uint64_t found;
    memcpy(&found, block.data + i * sizeof found, sizeof found);
    if (found == Word(block.stamp, i)) continue;
    *wrong = {slot.number, i, found, Word(block.stamp, i), block.bytes, block.mapped};
    return false;
  }
  return true;
}

void AllocatorChurn::Report(const char* who, const WrongWord& wrong) {
  char text[256];
  snprintf(text, sizeof text,
           "%s, block %" PRIu64 " (%" PRIu64 " bytes of %s), its byte %" PRIu64
           ": found 0x%016" PRIx64 ", expected 0x%016" PRIx64 "%s",
           who, wrong.slot, wrong.bytes, wrong.mapped ? "mmap" : "malloc",
           wrong.index * sizeof(uint64_t), wrong.found, wrong.expected,
           wrong.found == 0 ? "; zeros: the page was lost" : "");
  context_.ReportWrong(text);
}

bool AllocatorChurn::Check(Slot* slot) {
  WrongWord wrong;
  if (!IsRight(*slot, 0, slot->block.words(), &wrong)) {
    Report("in the process itself", wrong);
    return false;
  }
  slot->checksum = std::rotl(slot->checksum, 7) + churn::Mix(slot->block.stamp) + slot->block.bytes;
  return true;
}

void AllocatorChurn::Allocate(Slot* slot) {
  Block block;
  block.mapped = slot->random.OneIn(3);
  block.bytes = NewBytes(slot, block.mapped);
  block.stamp = slot->random.Next();
  void* data = block.mapped ? mmap(nullptr, block.bytes, PROT_READ | PROT_WRITE,
                                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
                            : malloc(block.bytes);
  if (data == nullptr || data == MAP_FAILED) {
    ReportRefusal(block.mapped ? "mmap" : "malloc", block.bytes);
    return;
  }
  block.data = static_cast<std::byte*>(data);
  slot->block = block;
  Write(&slot->block, 0);
}

// realloc or mremap: what both sizes have stays, what is new is written.
void AllocatorChurn::Resize(Slot* slot) {
  Block& block = slot->block;
  const uint64_t bytes = NewBytes(slot, block.mapped), old_words = block.words();
  HandOverAddresses();
  void* data = block.mapped ? mremap(block.data, block.bytes, bytes, MREMAP_MAYMOVE)
                            : realloc(block.data, bytes);
  HandOverAddresses();
  if (data == nullptr || data == MAP_FAILED) {
    ReportRefusal(block.mapped ? "mremap" : "realloc", bytes);
    return;
  }
  block.data = static_cast<std::byte*>(data);
  block.bytes = bytes;
  WrongWord wrong;
  if (!IsRight(*slot, 0, std::min(old_words, block.words()), &wrong)) {
    Report(block.mapped ? "after mremap" : "after realloc", wrong);
    return;
  }
  Write(&block, old_words);
}

// Some whole pages of it, as allocators do with what is free: they read as zeros, and are written
// once more.
void AllocatorChurn::Discard(Slot* slot) {
  Block& block = slot->block;
  const auto begin = reinterpret_cast<uintptr_t>(block.data);
  const uint64_t first = (begin + kPageSize - 1) / kPageSize,
                 end = (begin + block.bytes) / kPageSize;
  if (first >= end) return;
  const uint64_t from = slot->random.Between(first, end - 1);
  const uint64_t to = slot->random.Between(from + 1, end);
  std::byte* data = block.data + (from * kPageSize - begin);
  if (madvise(data, (to - from) * kPageSize, MADV_DONTNEED) != 0) {
    ReportRefusal("madvise(MADV_DONTNEED)", (to - from) * kPageSize);
    return;
  }
  for (uint64_t i = 0; i < (to - from) * kWordsPerPage; ++i) {
    const auto index = static_cast<uint64_t>(data - block.data) / sizeof(uint64_t) + i;
    uint64_t word;
    memcpy(&word, data + i * sizeof word, sizeof word);
    if (word != 0) {
      Report("after madvise(MADV_DONTNEED)",
             {slot->number, index, word, 0, block.bytes, block.mapped});
      return;
    }
    word = Word(block.stamp, index);
    memcpy(data + i * sizeof word, &word, sizeof word);
  }
}

void AllocatorChurn::RunChild(Slot* slot, unsigned thread, int result) {
  if (context_.hooks().in_child) {
    context_.hooks().in_child({slot->block.data, slot->block.bytes});
  }
  WrongWord wrong;
  // Of those that no other thread changes, this one and some more: a fork is to cost a part of what
  // the memory costs, not all of it. What the child writes must not reach the parent.
  for (uint64_t number = thread; number < kSlots; number += context_.options().threads) {
    const Slot& mine = slots_[number];
    if (number != slot->number && (number + slot->number) % kCheckedOneOf != 0) continue;
    if (!IsRight(mine, 0, mine.block.words(), &wrong)) {
      _exit(write(result, &wrong, sizeof wrong) == sizeof wrong ? 1 : 2);
    }
  }
  slot->block.stamp = ~slot->block.stamp;
  Write(&slot->block, 0);
  if (!IsRight(*slot, 0, slot->block.words(), &wrong)) {
    _exit(write(result, &wrong, sizeof wrong) == sizeof wrong ? 1 : 2);
  }
  _exit(0);
}

void AllocatorChurn::Fork(Slot* slot, unsigned thread) {
  int ends[2];
  if (pipe(ends) != 0) {
    context_.ReportFailure(SystemFailure("pipe"));
    return;
  }
  const pid_t child = fork();
  if (child == 0) RunChild(slot, thread, ends[1]);
  if (child < 0) context_.ReportFailure(SystemFailure("fork"));
  close(ends[1]);
  WrongWord wrong;
  const bool told = child > 0 && read(ends[0], &wrong, sizeof wrong) == sizeof wrong;
  close(ends[0]);
  if (child < 0) return;
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (told) {
    Report("in a forked child", wrong);
  } else if (status != 0) {
    context_.ReportWrong("a forked child, which only reads and writes its memory, has ended with " +
                         (WIFSIGNALED(status) ? "signal " + std::to_string(WTERMSIG(status))
                                              : "status " + std::to_string(WEXITSTATUS(status))));
  } else {
    Check(slot);
  }
}

void AllocatorChurn::Free(Slot* slot) {
  Block& block = slot->block;
  HandOverAddresses();
  if (block.mapped) {
    munmap(block.data, block.bytes);
  } else {
    free(block.data);
  }
  block = {};
}

void AllocatorChurn::Step(Slot* slot, unsigned thread) {
  if (slot->block.data == nullptr) {
    Allocate(slot);
    return;
  }
  if (!Check(slot)) return;
  const uint64_t choice = slot->random.Below(32);
  if (choice < 8) {
    slot->block.stamp = slot->random.Next();
    Write(&slot->block, 0);
  } else if (choice < 18) {
    Resize(slot);
  } else if (choice < 25) {
    Discard(slot);
  } else if (choice < 31) {
    Free(slot);
  } else {
    Fork(slot, thread);
  }
}

void AllocatorChurn::Prepare(uint64_t) {
  for (Slot& slot : slots_) {
    Allocate(&slot);
    if (context_.wrong()) return;
  }
}

// In turn, so that all blocks of a thread are alive beside each other.
uint64_t AllocatorChurn::Work() {
  context_.RunThreads([this](unsigned thread) {
    for (uint64_t done = 0; done * kSlots < steps_; ++done) {
      for (uint64_t number = thread; number < kSlots; number += context_.options().threads) {
        if (done * kSlots + number >= steps_) return;
        const auto begin = std::chrono::steady_clock::now();
        Step(&slots_[number], thread);
        context_.RecordLatency(std::chrono::steady_clock::now() - begin);
        if (context_.wrong()) return;
      }
    }
  });
  return steps_;
}

uint64_t AllocatorChurn::Verify() {
  uint64_t checksum = 0;
  for (Slot& slot : slots_) {
    if (slot.block.data != nullptr && !Check(&slot)) return 0;
    checksum = std::rotl(checksum, 7) + slot.checksum;
  }
  return checksum;
}

}  // namespace

std::unique_ptr<Workload> MakeAllocatorChurn(WorkContext* context) {
  return std::make_unique<AllocatorChurn>(context);
}

}  // namespace faultline::workload
