// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_LIVE_ATTACHMENT_H_
#define FAULTLINE_CLIENT_LIVE_ATTACHMENT_H_

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "client/attachment.h"
#include "client/attachment_metrics.h"
#include "client/descriptor_reserve.h"
#include "client/event_loop.h"
#include "client/evict/evictor.h"
#include "client/evict/far_memory.h"
#include "client/fault/drainer.h"
#include "client/fault/fault_reader.h"
#include "client/fault/fetcher.h"
#include "client/fault/paged_memory.h"
#include "client/fault/read_ahead.h"
#include "client/memory_map.h"
#include "client/process_maps.h"
#include "client/timers.h"
#include "proto/mutex.h"

namespace faultline {

// Whose memory an attachment serves.
struct AttachedProcess {
  AttachmentId id = 0;
  AttachmentId parent = 0;
  pid_t pid = 0;           // 0: not known (yet)
  UniqueFd pidfd;          // of `pid`
  bool same_pids = false;  // it has the pid namespace of this process
  std::string volume;
};

// One attached process, or a forked child of one: the units of its fault pipeline, wired.
//
// Thread-safe. Ends by Close(), after which it does nothing any more.
class LiveAttachment final : public Target,
                             public ReaderHost,
                             public std::enable_shared_from_this<LiveAttachment> {
 public:
  // What it needs from the Pager, which outlives it.
  struct Environment {
    Timers* timers = nullptr;
    EventLoop* loop = nullptr;  // its thread is the one reader of the uffd
    DescriptorReserve* reserve = nullptr;
    bool serial = false;  // everything on the loop's thread
    std::function<void(AttachmentId)> on_gone;
    std::function<void(LiveAttachment& parent, std::shared_ptr<PagedMemory>)> on_fork;
  };

  // `recorder` may be null.
  LiveAttachment(AttachedProcess process, const AttachmentOptions& options,
                 std::shared_ptr<PageSource> source, std::shared_ptr<PagedMemory> memory,
                 std::shared_ptr<WorkingSetRecorder> recorder, const Environment& environment);

  // To be called before Start() of memory that another process has served, on its threads' behalf.
  void Recover();
  absl::Status Start();  // serving
  // Starts the drain, if that was asked for. The memory is registered by now: what is not cannot
  // be filled, and the drain would leave it out. `behind`: of what was fetched before; may be null.
  void StartDrain(const DrainWindow* behind = nullptr);
  // The same, behind a fetch of `working_set`; `on_replayed`, which may be null, is called between.
  void StartReplay(const WorkingSet& working_set, std::function<void()> on_replayed);
  // Of far memory: pages leave from StartEvicting() on where there is no room for them.
  void PrepareEvicting(std::unique_ptr<PageExtractor> extractor, FarMemory far);
  void StartEvicting();
  // The same, as soon as it is known which pages are there: of memory that another process has
  // served. After Start().
  void ResumeEvicting();
  // What its program asks for; OUT_OF_RANGE for pages that it has not, FAILED_PRECONDITION where it
  // is no far memory.
  void Perform(FarCommand command, FarDone done);
  // Starts serving a forked child.
  void StartForked();
  // Ends it, without a look at pages that are not filled. Safe to call twice.
  void Close();

  // Sees to it that no page that is still at the source can turn into zeros once the uffd closes.
  void SecureAbsentPages();
  // Gives the memory back to the kernel: it is ordinary from here on, and nobody waits.
  void Unregister();

  AttachmentId id() const { return id_; }
  pid_t pid() const { return pid_; }
  bool same_pids() const { return same_pids_; }
  const std::string& volume() const { return volume_; }
  const AttachmentOptions& options() const { return options_; }
  const std::shared_ptr<PageSource>& source() const { return source_; }
  const std::shared_ptr<WorkingSetRecorder>& recorder() const { return recorder_; }
  AttachmentStats Stats() const;
  AttachmentMetrics Metrics() const;
  MemoryMap Map(const MapView& view) const;
  const EventRing& events() const { return reader_.events(); }

  std::string Name() const override;
  bool Kill(const std::string& reason) override;
  void Gone() override;
  void OnFork(std::shared_ptr<PagedMemory> memory) override;
  absl::StatusOr<std::shared_ptr<PageSource>> ForkSource() override;
  bool KnowsProcess(pid_t thread) override;
  bool IsRunning() override;
  std::vector<AddressRange> MappedParts(AddressRange range) override;

 private:
  std::shared_ptr<ReadAhead> NewReadAhead() const;
  void OnReadable();
  void PauseForDescriptors(const absl::Status& status);
  // Looks, now and then, whether the memory is still there, whether events are outstanding that
  // the address space waits for, and whether fills are held off for too long.
  void Tick();
  void TickLater(SteadyClock::duration delay);
  void Watch();
  // A forked child whose first fault tells which process it is: notes that, and which of its memory
  // was wiped by the fork (MADV_WIPEONFORK), which no event tells.
  void Identify(pid_t thread);
  // Whether memory of process `pid` that a fork wipes now was wiped by its own: it may have been
  // marked since. Before anything was filled, so that what it has of it was there at its fork.
  bool WasWiped(pid_t pid, AddressRange range) const;
  bool CanBeIdentified() const;
  // Whether memory of this address space is registered in one of them.
  bool ServesOneOf(const std::vector<VmArea>& areas) const;
  // Stops the target from `stop_at` on.
  void PoisonAbsentPages(SteadyClock::time_point stop_at);
  // Holds the target by SIGSTOP, until ContinueTarget(): its threads come to the end of what they
  // do to its memory, and then nothing of it changes. A shell whose job it is sees that, so this is
  // for where it would be killed otherwise. Only where it is another process, whose pid is known.
  void StopTarget();
  void ContinueTarget();
  bool SendSignal(int signal) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::vector<PageRange> AbsentPages() const;
  void StopEvicting();
  // All but the quantiles of latencies.
  AttachmentStats CountersOf() const;
  void AddStages(const FaultCounters& counters, AttachmentStats* stats) const;
  void AddDrain(AttachmentMetrics* metrics) const;
  // That are still to be fetched. Memory that is mapped twice counts twice.
  static uint64_t PagesLeft(const AttachmentStats& stats);
  void OnDrained(uint64_t left);

  const AttachmentId id_, parent_;
  const bool same_pids_;
  const std::string volume_;
  const AttachmentOptions options_;
  const Environment environment_;
  const std::shared_ptr<PagedMemory> memory_;
  const std::shared_ptr<PageSource> source_;
  const std::shared_ptr<WorkingSetRecorder> recorder_;  // null: nothing is recorded
  const std::shared_ptr<Fetcher> fetcher_;
  const std::shared_ptr<ReadAhead> ahead_;  // null without a prefetch policy
  FaultReader reader_;
  std::atomic<pid_t> pid_;
  std::atomic<bool> identifying_ = false;
  std::atomic<bool> identified_ = false;  // or cannot be
  std::atomic<bool> killed_ = false;
  std::atomic<bool> gone_ = false;
  std::atomic<bool> closed_ = false;
  std::atomic<bool> drained_ = false;
  std::atomic<bool> settling_ = false;  // a look is due soon, as something is set aside
  std::atomic<bool> watch_reported_ = false;
  std::atomic<bool> out_of_descriptors_ = false;
  std::atomic<SteadyClock::time_point> last_held_ = SteadyClock::time_point();  // by Watch()
  mutable Mutex mu_;
  bool target_stopped_ ABSL_GUARDED_BY(mu_) = false;
  UniqueFd pidfd_ ABSL_GUARDED_BY(mu_);
  // When the drain of everything began, and how many pages were left then; none: it has not.
  std::optional<SteadyClock::time_point> drain_began_ ABSL_GUARDED_BY(mu_);
  uint64_t left_at_drain_ ABSL_GUARDED_BY(mu_) = 0;
  ForkedSource::Freeze freeze_ ABSL_GUARDED_BY(mu_);       // of far memory
  std::shared_ptr<Evictor> evictor_ ABSL_GUARDED_BY(mu_);  // of far memory, until it is closed
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_LIVE_ATTACHMENT_H_
