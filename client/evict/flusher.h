// SPDX-License-Identifier: Apache-2.0
//
// Flusher: writes pages of far memory to the volume that stay where they are: for a flush, or for a
// checkpoint, which is the volume as the memory was at one moment.
//
// A flush copies each resident page that is not as the server has it, and waits until the copies
// are acknowledged; nothing is protected for it, and no thread of the program waits.
//
// A checkpoint, and why it is of one moment:
//   1. Flush: what is left to do in the steps that threads may wait for is what has changed since.
//   2. Drain: no page is evicted until every write has ended.
//   3. The moment: with the map-changing lock held exclusively, so that nothing is filled, all of
//      the memory is write-protected. Who writes to a page that is protected already waits until
//      all are: so whatever a write depends on is in the image where the write is.
//   4. Capture: each page that was there is copied, and only then let go; those that a thread waits
//      for come first. Pages that are not captured yet do not leave, and what leaves is not
//      written: nothing that is later than the moment reaches the volume.
//   5. Once every copy is acknowledged, the server takes the snapshot, and writes go on.
#ifndef FAULTLINE_CLIENT_EVICT_FLUSHER_H_
#define FAULTLINE_CLIENT_EVICT_FLUSHER_H_

#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "client/evict/far_command.h"
#include "client/evict/page_extractor.h"
#include "client/fault/paged_memory.h"
#include "client/source/page_sink.h"
#include "client/timers.h"

namespace faultline {

// One command at a time, in their order. Of the Evictor's thread.
class Flusher {
 public:
  // Takes a snapshot of the volume as it is; blocks. Null: there are no checkpoints.
  using Snapshot = std::function<absl::Status(const std::string& name)>;

  // `extractor` and `timers`, which run `snapshot`, are borrowed; `name` is said of the attachment.
  Flusher(std::shared_ptr<PagedMemory> memory, PageExtractor* extractor,
          std::shared_ptr<PageSink> sink, Snapshot snapshot, Timers* timers, std::string name);
  // Ends what is left with an error.
  ~Flusher();

  void Add(FarCommand command, FarDone done);
  // Gets on with it, and returns whether it got anywhere. LocalMemory is woken when it can again.
  bool Step();
  bool idle() const { return work_.empty(); }
  // Whether pages may be taken out of the memory at all, and whether this one may not.
  bool MayEvict() const { return step_ != Stage::kDraining; }
  bool Stays(PageIndex page) const;

 private:
  enum class Stage { kIdle, kFlushing, kDraining, kCapturing, kSnapshot };
  struct Work {
    FarCommand command;
    FarDone done;
  };
  // Copies of pages, until they are written.
  struct Batch;
  // What the answers to writes need: lives until the last of them.
  struct Answers;

  bool Begin();
  bool Flush();
  bool Drain();
  bool TakeMoment();
  bool Capture();
  bool AwaitSnapshot();
  // The next pages from the cursor on that are resident, or not written yet.
  std::vector<PageIndex> NextPages();
  // Copies `pages` and has those written that the server has not; appends those to `*again` of
  // which another write is under way.
  absl::Status Copy(const std::vector<PageIndex>& pages, std::vector<PageIndex>* again);
  // Lets threads write to `pages` again; what cannot be now is tried again.
  void Release(PageRange pages);
  bool ReleaseHeldWriters();
  bool RetryReleases();
  // Sends what is due, and takes in what was answered.
  bool Send();
  bool TakeAnswers();
  bool HasCopyRoom() const;
  bool CheckDeadline();
  void End(const absl::Status& status);
  std::string Behind() const;

  const std::shared_ptr<PagedMemory> memory_;
  PageExtractor* const extractor_;
  const std::shared_ptr<PageSink> sink_;
  const Snapshot snapshot_;
  Timers* const timers_;
  const std::string name_;
  const std::shared_ptr<Answers> answers_;

  std::deque<Work> work_;
  Stage step_ = Stage::kIdle;
  PageIndex cursor_;
  std::vector<PageIndex> again_;  // of a flush: to be looked at once more
  // Of a checkpoint, by page: it was there at the moment, and is not captured yet.
  std::vector<bool> pending_;
  uint64_t pending_count_ = 0;
  std::vector<PageRange> to_release_;
  std::deque<std::shared_ptr<Batch>> to_send_;
  uint64_t copied_pages_ = 0;  // that are not acknowledged
  int writes_under_way_ = 0;
  SteadyClock::time_point not_before_;
  SteadyClock::duration backoff_;
  absl::Status last_failure_;
  // For the log.
  uint64_t written_pages_ = 0;
  SteadyClock::duration protecting_{}, longest_held_{};
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_EVICT_FLUSHER_H_
