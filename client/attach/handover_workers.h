// SPDX-License-Identifier: Apache-2.0
//
// HandoverWorkers: the threads that carry out what peers ask for, as far as it may block: opening a
// volume on a server that may be down, and the calls of the Pager.
#ifndef FAULTLINE_CLIENT_ATTACH_HANDOVER_WORKERS_H_
#define FAULTLINE_CLIENT_ATTACH_HANDOVER_WORKERS_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <chrono>
#include <functional>
#include <future>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "client/attach/handover_message.h"
#include "client/attach/peer_process.h"
#include "client/attach/volume_permissions.h"
#include "client/evict/local_memory_limit.h"
#include "client/pager.h"
#include "client/source/page_sink.h"
#include "proto/mutex.h"

namespace faultline {

// Ends a peer whose handover failed for good. A seam for tests.
using EndPeer = std::function<absl::Status(const PeerProcess&)>;

struct HandoverWorkersOptions {
  // Who of those who may connect may have which volume, also to make and to be shown. What an agent
  // that was killed has left is gone on with, whatever they say.
  VolumePermissions permissions;
  std::string volume;  // of peers that speak Firecracker's form; empty: there can be none
  AttachmentOptions attachment;
  // Handovers that are tried at the same moment may exceed it by `threads` - 1.
  size_t max_attachments = 1024;
  int threads = 4;
  // How long a peer that takes an answer waits for its volume to be opened. One that does not waits
  // for the fault deadline, or under FaultPolicy::kWait for ever.
  absl::Duration open_timeout = absl::Seconds(10);
  // Bounds one try, and so what others wait for a thread, and how long Stop() takes.
  absl::Duration try_timeout = absl::Seconds(2);
  absl::Duration first_backoff = absl::Milliseconds(100);  // doubled after each try
  absl::Duration max_backoff = absl::Seconds(2);
  EndPeer end_peer = KillPeer;
  // Opens volumes for far memory; null: there is none.
  OpenVolumeIo open_volume_io;
  // Freezes a volume as it is now, for the child of a process with far memory, and opens that; what
  // is frozen is given up with the source.
  std::function<absl::StatusOr<std::shared_ptr<PageSource>>(absl::string_view volume)>
      freeze_volume;
  // Makes a volume whose name begins with `prefix`, which is deleted with its source.
  std::function<absl::StatusOr<VolumeIo>(absl::string_view prefix, uint64_t size_bytes,
                                         absl::Time deadline)>
      make_volume;
  // Makes a volume that stays, and opens it; and undoes that.
  std::function<absl::StatusOr<VolumeIo>(const NewVolume& volume, absl::Time deadline)> new_volume;
  std::function<void(const std::string& volume)> delete_volume;
  // Takes a snapshot of `volume` as it is now; blocks.
  std::function<absl::Status(const std::string& volume, const std::string& snapshot)>
      snapshot_volume;
  // Goes on with such a volume, which an agent has left that was killed.
  OpenVolumeIo take_over_volume;
  LocalMemoryLimit local_memory;            // of far memory that asks for none
  std::string eviction_policy = "s3-fifo";  // of far memory that asks for none
  // All budgets together, in bytes.
  uint64_t total_local_memory = UINT64_MAX;
  WorkingSets* working_sets = nullptr;  // borrowed; null: none are kept
  // How long the answer of a handover waits for its working set to be fetched, so that the program
  // begins with it in place.
  absl::Duration replay_wait = absl::ZeroDuration();
};

struct HandoverJob {
  uint64_t connection = 0;  // told back with the outcome
  HandoverRequest request;
  PeerProcess peer;               // or the process that it has handed over
  UniqueFd uffd;                  // of a handover
  std::vector<UniqueFd> further;  // the descriptors that followed it
  // Instead: an attachment that another agent has left, and its record; `peer` is its process. Not
  // answered.
  std::unique_ptr<AttachmentJournal> journal;
  std::optional<AttachmentRecord> left;
  std::optional<AttachmentId> attachment;       // that `connection` has; what kDetach ends
  std::chrono::steady_clock::time_point begin;  // set by Submit
  std::chrono::steady_clock::time_point due;    // of the next try; set by Submit
  absl::Duration backoff;                       // before the try after it; set by Submit
};

struct HandoverOutcome {
  uint64_t connection = 0;
  std::string reply;  // empty for Firecracker's form
  std::optional<AttachmentId> attached;
  bool detached = false;
};

// Thread-safe, but for Stop().
class HandoverWorkers {
 public:
  using Done = std::function<void(HandoverOutcome)>;

  // `pager` must outlive this. `done` is called once for each job, on one of the threads or within
  // Submit() or Stop().
  HandoverWorkers(HandoverWorkersOptions options, Pager* pager, OpenSource open_source, Done done);
  ~HandoverWorkers();  // Stop()

  void Submit(HandoverJob job);

  // As HandoverServer::Adopt().
  void Adopt(LeftAttachment left);

  // Lets what runs end, and what waits fail. After it nothing here calls the Pager. Idempotent.
  void Stop();

  // Gives up a handover in Firecracker's form for `reason`. Its peer takes no answer, and all of
  // its memory is registered: left alone, its threads would hang on the first page that they touch.
  // So it is killed, unless the fault policy is to wait; the log says both the reason and the deed.
  void GiveUp(const PeerProcess& peer, const absl::Status& reason) const {
    GiveUp(peer, options_.attachment.policy, reason);
  }

 private:
  using Clock = std::chrono::steady_clock;

  void Run();
  // The job that is due first, when it is; nothing once stopped.
  std::optional<HandoverJob> Take();
  // The outcome, or nothing when the job has been queued for another try.
  std::optional<HandoverOutcome> Work(HandoverJob& job);
  std::optional<HandoverOutcome> Handover(HandoverJob& job);
  absl::StatusOr<VolumeIo> Open(const HandoverJob& job, absl::Time deadline) const;
  absl::StatusOr<AttachmentId> Attach(HandoverJob& job, VolumeIo volume);
  absl::StatusOr<AttachmentId> Adopt(HandoverJob& job, VolumeIo volume);
  // What `job` asks for of far memory, of `volume`, which it writes.
  absl::StatusOr<std::unique_ptr<FarMemory>> PrepareFar(HandoverJob& job,
                                                        const VolumeIo& volume) const;
  // The same of the attachment that another agent has left.
  absl::StatusOr<std::unique_ptr<FarMemory>> PrepareLeftFar(const HandoverJob& job,
                                                            const VolumeIo& volume) const;
  // What both are; `files` are those of `record`, or the command memory alone.
  absl::StatusOr<std::unique_ptr<FarMemory>> MakeFar(const FarRecord& record,
                                                     std::vector<UniqueFd> files,
                                                     const PeerProcess& peer,
                                                     const VolumeIo& volume) const;
  // Waits until the working set is in place, but not longer than somebody is there who cares.
  void AwaitReplay(std::future<void> replayed, const PeerProcess& peer);
  // Has the working set recorded or replayed, as the request's options say.
  void PrepareWorkingSet(AttachRequest* request) const;
  // What is to be fetched first, beside that.
  static absl::Status PrepareFirstPages(const std::vector<uint64_t>& first_pages,
                                        AttachRequest* request);
  std::shared_ptr<WorkingSetRecorder> NewRecorder(const std::string& volume,
                                                  const PageSource& source) const;
  // Those of volumes that `peer` may have.
  std::vector<AttachmentStats> AttachmentsFor(const PeerProcess& peer) const;
  absl::Status Detach(const HandoverJob& job) const;
  // Has it done, and answered then, which may be long after this.
  void Command(HandoverJob job);
  // PERMISSION_DENIED where `job` names an attachment of another process than its peer.
  absl::Status CheckOwner(const HandoverJob& job) const;
  HandoverOutcome Fail(const HandoverJob& job, const absl::Status& status) const;
  // Of a job that is not done as the agent stops.
  HandoverOutcome Abandon(const HandoverJob& job) const;
  void GiveUp(const PeerProcess& peer, FaultPolicy policy, const absl::Status& reason) const;
  const AttachmentOptions& OptionsOf(const HandoverJob& job) const;
  void Requeue(HandoverJob job);
  absl::Duration TimeLeft(const HandoverJob& job) const;
  absl::string_view VolumeOf(const HandoverJob& job) const;
  bool MayRetry(const HandoverJob& job, const absl::Status& status) const;

  // Where what is answered later finds this, or does not any more.
  struct LaterAnswers;

  const HandoverWorkersOptions options_;
  Pager* const pager_;
  const OpenSource open_source_;
  const Done done_;
  const std::shared_ptr<LaterAnswers> later_;
  std::vector<std::thread> threads_;  // joined by Stop()

  Mutex mu_;
  CondVar changed_;
  // Bounded by the connections, which have one job each at most.
  std::list<HandoverJob> jobs_ ABSL_GUARDED_BY(mu_);
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;
  size_t attaching_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_ATTACH_HANDOVER_WORKERS_H_
