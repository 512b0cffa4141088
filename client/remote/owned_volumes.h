// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_REMOTE_OWNED_VOLUMES_H_
#define FAULTLINE_CLIENT_REMOTE_OWNED_VOLUMES_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>
#include <absl/time/time.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <thread>

#include "client/remote/admin_client.h"
#include "client/remote/page_server.h"
#include "client/source/page_sink.h"
#include "proto/mutex.h"

namespace faultline {

// Volumes and snapshots that are there for as long as somebody uses them, and are then deleted; one
// that cannot be is named in a warning. Thread-safe.
class OwnedVolumes {
 public:
  // `server` is borrowed; it may be destroyed before Finish(), when nothing else is called any
  // more.
  OwnedVolumes(std::unique_ptr<AdminClient> admin, PageServer* server);
  // Finish(). Every source must have been destroyed.
  ~OwnedVolumes();
  // Returns when everything is deleted, or cannot be; false where any could not. Nothing else may
  // be called afterwards.
  bool Finish();

  // A new volume of `size_bytes`, all zero, whose name begins with `prefix`; until its source is
  // destroyed, and not at all after an error. The errors of AdminClient::CreateVolume() and
  // PageServer::OpenVolumeIo().
  absl::StatusOr<VolumeIo> Create(absl::string_view prefix, uint64_t size_bytes,
                                  absl::Time deadline);
  // Goes on with `volume`, which another process has created here and has left when it ended. Its
  // snapshots by Freeze() are deleted later: nobody has them any more. Errors of OpenVolumeIo().
  absl::StatusOr<VolumeIo> TakeOver(absl::string_view volume, absl::Time deadline);
  // Deletes `volume`, which such a process has left, and its snapshots: nobody is left who uses
  // them. Later; does not wait for the server.
  void Discard(absl::string_view volume);
  // A snapshot of `volume` as it is now, until the source is destroyed.
  absl::StatusOr<std::shared_ptr<PageSource>> Freeze(absl::string_view volume);

  // A new volume, or a clone, that nobody owns: it stays until it is deleted.
  absl::StatusOr<VolumeIo> CreateKept(const NewVolume& volume, absl::Time deadline);
  // A snapshot that stays.
  absl::Status Snapshot(absl::string_view volume, absl::string_view snapshot);
  // One of those. Blocks: whoever made it in vain may make it again at once.
  void DeleteNow(const std::string& name);

 private:
  std::string NewName(absl::string_view prefix);
  // `status`, of making `name`, which is deleted where it may be there all the same.
  absl::Status Made(absl::Status status, const std::string& name);
  // `source`, and when it is destroyed the volume `name` is deleted.
  std::shared_ptr<PageSource> Own(std::shared_ptr<PageSource> source, std::string name);
  struct Unused {
    std::string volume;
    bool itself = true;
    bool left_snapshots = false;  // those that another process has made of it
  };
  void Delete();
  void Schedule(Unused unused);
  void DeleteLeftSnapshots(absl::string_view volume);

  const std::unique_ptr<AdminClient> admin_;
  PageServer* const server_;
  Mutex mu_;
  CondVar changed_;
  uint64_t next_ ABSL_GUARDED_BY(mu_) = 1;
  std::deque<Unused> unused_ ABSL_GUARDED_BY(mu_);
  std::atomic<bool> any_left_ = false;  // on the server
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread deleter_;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_REMOTE_OWNED_VOLUMES_H_
