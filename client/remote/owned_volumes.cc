// SPDX-License-Identifier: Apache-2.0
#include "client/remote/owned_volumes.h"

#include <absl/strings/str_cat.h>
#include <absl/time/clock.h>
#include <unistd.h>

#include <utility>

#include "proto/log.h"

namespace faultline {
namespace {

constexpr absl::Duration kOpenTimeout = absl::Seconds(10);

}  // namespace

OwnedVolumes::OwnedVolumes(std::unique_ptr<AdminClient> admin, PageServer* server)
    : admin_(std::move(admin)), server_(server), deleter_([this] { Delete(); }) {}

OwnedVolumes::~OwnedVolumes() {
  {
    MutexLock lock(mu_);
    stopping_ = true;
  }
  changed_.SignalAll();
  deleter_.join();
}

std::string OwnedVolumes::NewName(absl::string_view prefix) {
  MutexLock lock(mu_);
  return absl::StrCat(prefix, ".", getpid(), ".", next_++);
}

absl::StatusOr<VolumeIo> OwnedVolumes::Create(absl::string_view prefix, uint64_t size_bytes,
                                              absl::Time deadline) {
  rpc::CreateVolumeRequest request;
  request.set_name(NewName(prefix));
  request.set_size_bytes(size_bytes);
  // Of use to nobody once this process has ended.
  request.set_durability(rpc::DURABILITY_NONE);
  absl::StatusOr<rpc::Volume> made = admin_->CreateVolume(request);
  if (!made.ok()) return made.status();
  absl::StatusOr<VolumeIo> io = server_->OpenVolumeIo(request.name(), deadline);
  if (!io.ok()) {
    admin_->DeleteVolume(request.name()).IgnoreError();
    return io.status();
  }
  io->name = request.name();
  io->source = Own(std::move(io->source), request.name());
  return io;
}

absl::StatusOr<VolumeIo> OwnedVolumes::CreateKept(const NewVolume& volume, absl::Time deadline) {
  absl::StatusOr<rpc::Volume> made;
  if (!volume.snapshot.empty()) {
    made = admin_->CloneVolume(volume.snapshot, volume.name);
  } else {
    rpc::CreateVolumeRequest request;
    request.set_name(volume.name);
    request.set_size_bytes(volume.size_bytes);
    if (volume.durability == "none") {
      request.set_durability(rpc::DURABILITY_NONE);
    } else if (volume.durability == "interval") {
      request.set_durability(rpc::DURABILITY_INTERVAL);
    } else if (!volume.durability.empty() && volume.durability != "sync") {
      return absl::InvalidArgumentError(absl::StrCat("unknown durability \"", volume.durability,
                                                     "\"; known are sync, interval and none"));
    }
    made = admin_->CreateVolume(request);
  }
  if (!made.ok()) return made.status();
  absl::StatusOr<VolumeIo> io = server_->OpenVolumeIo(volume.name, deadline);
  if (!io.ok()) DeleteNow(volume.name);
  return io;
}

absl::Status OwnedVolumes::Snapshot(absl::string_view volume, absl::string_view snapshot) {
  return admin_->SnapshotVolume(volume, snapshot).status();
}

void OwnedVolumes::DeleteNow(const std::string& name) {
  const absl::Status deleted = admin_->DeleteVolume(name);
  if (deleted.ok()) return;
  LogWarning(absl::StrCat(
      "volume ", name, ", which nobody uses any more, is left on the server: ", deleted.message()));
}

void OwnedVolumes::DeleteLater(std::string name) {
  {
    MutexLock lock(mu_);
    unused_.push_back(std::move(name));
  }
  changed_.SignalAll();
}

absl::StatusOr<std::shared_ptr<PageSource>> OwnedVolumes::Freeze(absl::string_view volume) {
  const std::string name = NewName(absl::StrCat(volume, ".fork"));
  absl::StatusOr<rpc::Volume> made = admin_->SnapshotVolume(volume, name);
  if (!made.ok()) return made.status();
  absl::StatusOr<std::shared_ptr<PageSource>> source =
      server_->OpenVolume(name, absl::Now() + kOpenTimeout);
  if (!source.ok()) {
    admin_->DeleteVolume(name).IgnoreError();
    return source.status();
  }
  return Own(*std::move(source), name);
}

std::shared_ptr<PageSource> OwnedVolumes::Own(std::shared_ptr<PageSource> source,
                                              std::string name) {
  PageSource* const raw = source.get();
  return {raw, [this, kept = std::move(source), name = std::move(name)](PageSource*) mutable {
            kept.reset();
            DeleteLater(std::move(name));
          }};
}

void OwnedVolumes::Delete() {
  for (;;) {
    std::string name;
    {
      MutexLock lock(mu_);
      while (unused_.empty() && !stopping_) changed_.Wait(mu_);
      if (unused_.empty()) return;
      name = std::move(unused_.front());
      unused_.pop_front();
    }
    DeleteNow(name);
  }
}

}  // namespace faultline
