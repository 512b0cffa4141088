// SPDX-License-Identifier: Apache-2.0
//
// Evictor: keeps an attachment's memory within its budget. Takes victims out of the target's memory
// in batches, writes them back, and gives them to the server for good once their writes are
// acknowledged and nothing older can be on its way (LocalMemory, FetchGrace).
//
// The order of one batch, and why nothing is lost:
//   1. Victims are marked kEvicting with the map-changing lock held exclusively: no fill of theirs
//      is between its ioctl and its note in the page table, and none begins from here on.
//   2. With its shared side held, they are located and taken out (PageExtractor), and those that
//      were become kStaged: from here on, faults are filled from what was taken. Where this agent
//      is killed, what was taken is in the helper's command memory, in a batch of the journal, or
//      in a slot of it (FarJournal).
//   3. Faults that came meanwhile are in the fault queue, and are served now.
//   4. They are written. A fault takes a page back whatever has become of its write; of one page,
//      one write is under way at a time.
//   5. When the write is acknowledged, and later the grace has passed, the page becomes kAbsent.
#ifndef FAULTLINE_CLIENT_EVICT_EVICTOR_H_
#define FAULTLINE_CLIENT_EVICT_EVICTOR_H_

#include <atomic>
#include <cstddef>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "client/evict/area_scanner.h"
#include "client/evict/far_command.h"
#include "client/evict/flusher.h"
#include "client/evict/forked_source.h"
#include "client/evict/page_extractor.h"
#include "client/evict/range_fetcher.h"
#include "client/fault/fetcher.h"
#include "client/fault/paged_memory.h"
#include "client/fault/read_ahead.h"
#include "client/source/page_sink.h"
#include "proto/mutex.h"

namespace faultline {

// One thread, from Start() to Stop(). Writes that are under way then end by themselves.
class Evictor {
 public:
  // `memory` has LocalMemory. `ahead` and `scanner` may be null, and so may `snapshot` (Flusher).
  // `target` and `timers` are borrowed.
  Evictor(std::shared_ptr<PagedMemory> memory, std::unique_ptr<PageExtractor> extractor,
          std::shared_ptr<PageSink> sink, std::shared_ptr<Fetcher> fetcher,
          std::shared_ptr<ReadAhead> ahead, std::unique_ptr<AreaScanner> scanner, Target* target,
          Flusher::Snapshot snapshot, Timers* timers);
  ~Evictor();

  void Start();
  // Safe to call twice.
  void Stop();
  PageExtractor* extractor() const { return extractor_.get(); }

  // Carries out what the program asks for; UNAVAILABLE where that is stopped before. Thread-safe.
  void Submit(FarCommand command, FarDone done);

  // No write begins from here on until `source` is frozen, or gone. Thread-safe.
  void HoldWritesFor(const std::shared_ptr<ForkedSource>& source);

 private:
  struct Writes;

  void Run();
  // Hands out what was submitted.
  void TakeCommands();
  // Each returns whether it got anywhere.
  bool EvictBatch();
  bool WriteBatch();
  bool DropBatch();
  // Takes them out. False where the target is gone.
  bool TakeOut();
  void NoteExceeded();
  void ServeWaiting();
  void Scan();
  bool MayWrite();

  const std::shared_ptr<PagedMemory> memory_;
  const std::unique_ptr<PageExtractor> extractor_;
  const std::shared_ptr<PageSink> sink_;
  const std::shared_ptr<Fetcher> fetcher_;
  const std::shared_ptr<ReadAhead> ahead_;
  const std::unique_ptr<AreaScanner> scanner_;
  Target* const target_;
  const std::shared_ptr<Writes> writes_;
  std::unique_ptr<Flusher> flusher_;  // of the thread, and so is the next; until Stop()
  std::unique_ptr<RangeFetcher> ranges_;

  // Of the thread.
  std::vector<PageIndex> victims_;
  struct Located {
    uint64_t address;
    PageIndex page;
  };
  std::vector<Located> located_;
  std::vector<uint64_t> addresses_;
  std::vector<Extraction> outcomes_;
  const std::unique_ptr<std::byte[]> bytes_;
  FarJournal::Batch* const
      batch_;              // instead of the two, where the extractor keeps nothing; or null
  bool held_off_ = false;  // the address space was changing

  SteadyClock::time_point next_scan_, growing_until_;
  bool full_ = false;      // the volume has no pages left
  bool disarmed_ = false;  // nothing can be taken out any more
  bool exceeded_ = false;  // some of what is here cannot be, and that is more than the budget

  Mutex mu_;
  std::vector<std::weak_ptr<ForkedSource>> forked_ ABSL_GUARDED_BY(mu_);  // not frozen
  std::vector<std::pair<FarCommand, FarDone>> commands_ ABSL_GUARDED_BY(mu_);
  std::atomic<bool> stopping_ = false;
  std::thread thread_;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_EVICT_EVICTOR_H_
