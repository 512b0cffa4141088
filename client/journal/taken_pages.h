// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_JOURNAL_TAKEN_PAGES_H_
#define FAULTLINE_CLIENT_JOURNAL_TAKEN_PAGES_H_

#include <linux/userfaultfd.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <thread>
#include <utility>

#include "client/journal/shared_file.h"
#include "proto/page.h"

namespace faultline {

// One bit for each page of an attachment, numbered from 0, in a file: set once the page has its
// content from elsewhere than the source (it was filled, or discarded), and never cleared: the
// source's content is never to be put there again. Thread-safe; stores, but no system call.
//
// A process can be killed between the ioctl that fills a page and the store of its bit. The target
// may have used the page by then, and punched a hole there, of which no trace is left. So the
// kernel itself notes what it has filled: the argument of UFFDIO_COPY is a part of the file
// (FillNote), and the kernel writes how far it got to that argument before it wakes anybody
// (fs/userfaultfd.c: userfaultfd_copy), with nothing between that a signal would end.
class TakenPages {
 public:
  static constexpr size_t FileSize(uint64_t pages) {
    return sizeof(Notes) +
           std::max<size_t>(1, pages / kWordBits + (pages % kWordBits != 0)) * sizeof(uint64_t);
  }

  // Of pages whose file was made with FileSize(). What a process was filling when it was killed is
  // noted, so there must be no other that fills.
  explicit TakenPages(SharedFile file) : file_(std::move(file)) {
    // The kernel must find the notes in memory. Where the limit does not allow it, pages in use
    // stay most probably.
    static_cast<void>(mlock(file_.bytes().data(), sizeof(Notes)));
    const uint64_t bits = (file_.bytes().size() - sizeof(Notes)) * 8;
    for (Note& note : notes()) {
      const uint64_t first = note.page - 1;
      const uint64_t count =
          note.call.copy > 0 ? static_cast<uint64_t>(note.call.copy) / kPageSize : 0;
      if (note.page != 0 && first < bits && count <= bits - first) Set(first, count);
      Release(&note);
    }
  }

  bool Get(uint64_t page) const {
    return (word(page / kWordBits).load(std::memory_order_relaxed) >> page % kWordBits & 1) != 0;
  }

  void Set(uint64_t first, uint64_t count) {
    while (count > 0) {
      const uint64_t from = first % kWordBits;
      const uint64_t here = std::min(count, kWordBits - from);
      const uint64_t mask = ~uint64_t{0} >> (kWordBits - here) << from;
      std::atomic_ref<uint64_t> bits = word(first / kWordBits);
      // Mostly it is there already where the page is filled once more.
      if ((bits.load(std::memory_order_relaxed) & mask) != mask) {
        bits.fetch_or(mask, std::memory_order_relaxed);
      }
      first += here;
      count -= here;
    }
  }

  // Calls `visit(first, count)` with each run of set bits below `pages`.
  template <typename Visit>
  void ForEachRun(uint64_t pages, Visit visit) const {
    for (uint64_t page = 0; page < pages;) {
      if (page % kWordBits == 0 && word(page / kWordBits).load(std::memory_order_relaxed) == 0) {
        page += kWordBits;
        continue;
      }
      const uint64_t first = page;
      while (page < pages && Get(page)) ++page;
      if (page > first) {
        visit(first, page - first);
      } else {
        ++page;
      }
    }
  }

 private:
  static constexpr uint64_t kWordBits = 64;
  static constexpr size_t kNotes = 64;  // more than there are threads that fill at a time

  // All zero while nobody has it.
  struct alignas(64) Note {
    std::atomic<uint64_t> page;  // the first that is filled, plus 1
    uffdio_copy call;
  };
  using Notes = std::array<Note, kNotes>;
  static_assert(std::atomic<uint64_t>::is_always_lock_free);

 public:
  // A UFFDIO_COPY that may be cut off: from before the call until the bits of what it has filled
  // are set. Borrows the TakenPages; null: it notes nothing.
  class FillNote {
   public:
    FillNote(TakenPages* pages, uint64_t first)
        : note_(pages != nullptr ? pages->Take(first) : nullptr) {}
    ~FillNote() {
      if (note_ != nullptr) Release(note_);
    }
    FillNote(const FillNote&) = delete;
    FillNote& operator=(const FillNote&) = delete;

    // The argument for the ioctl; all zero before it.
    uffdio_copy* call() { return note_ != nullptr ? &note_->call : &own_; }

   private:
    Note* const note_;
    uffdio_copy own_ = {};
  };

 private:
  Note* Take(uint64_t first) {
    for (;; std::this_thread::yield()) {
      for (Note& note : notes()) {
        uint64_t free = 0;
        if (note.page.load(std::memory_order_relaxed) == 0 &&
            note.page.compare_exchange_strong(free, first + 1, std::memory_order_acquire)) {
          return &note;
        }
      }
    }
  }

  // Stores of one thread reach the file in the order in which they are made, whatever ends the
  // thread; it is the compiler that has to keep them in order.
  static void Release(Note* note) {
    std::atomic_signal_fence(std::memory_order_seq_cst);
    note->call = {};
    note->page.store(0, std::memory_order_release);
  }

  Notes& notes() const { return *reinterpret_cast<Notes*>(file_.bytes().data()); }
  std::atomic_ref<uint64_t> word(uint64_t index) const {
    return std::atomic_ref<uint64_t>(
        reinterpret_cast<uint64_t*>(file_.bytes().data() + sizeof(Notes))[index]);
  }

  const SharedFile file_;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_JOURNAL_TAKEN_PAGES_H_
