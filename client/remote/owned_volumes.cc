// SPDX-License-Identifier: Apache-2.0
#include "client/remote/owned_volumes.h"

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <absl/time/clock.h>
#include <unistd.h>

#include <utility>
#include <vector>

#include "proto/log.h"

namespace faultline {
namespace {

constexpr absl::Duration kOpenTimeout = absl::Seconds(10);

std::string ForkPrefix(absl::string_view volume) { return absl::StrCat(volume, ".fork"); }

}  // namespace

OwnedVolumes::OwnedVolumes(std::unique_ptr<AdminClient> admin, PageServer* server)
    : admin_(std::move(admin)), server_(server), deleter_([this] { Delete(); }) {}

OwnedVolumes::~OwnedVolumes() { Finish(); }

bool OwnedVolumes::Finish() {
  {
    MutexLock lock(mu_);
    stopping_ = true;
  }
  changed_.SignalAll();
  if (deleter_.joinable()) deleter_.join();
  return !any_left_;
}

std::string OwnedVolumes::NewName(absl::string_view prefix) {
  MutexLock lock(mu_);
  return absl::StrCat(prefix, ".", getpid(), ".", next_++);
}

absl::Status OwnedVolumes::Made(absl::Status status, const std::string& name) {
  // A server that went away may have made it.
  if (absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status)) Schedule({.volume = name});
  return status;
}

absl::StatusOr<VolumeIo> OwnedVolumes::Create(absl::string_view prefix, uint64_t size_bytes,
                                              absl::Time deadline) {
  rpc::CreateVolumeRequest request;
  request.set_name(NewName(prefix));
  request.set_size_bytes(size_bytes);
  // Of use to nobody once this process has ended.
  request.set_durability(rpc::DURABILITY_NONE);
  if (absl::Status made = Made(admin_->CreateVolume(request).status(), request.name());
      !made.ok()) {
    return made;
  }
  absl::StatusOr<VolumeIo> io = server_->OpenVolumeIo(request.name(), deadline);
  if (!io.ok()) {
    Schedule({.volume = request.name()});
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

absl::StatusOr<VolumeIo> OwnedVolumes::TakeOver(absl::string_view volume, absl::Time deadline) {
  absl::StatusOr<VolumeIo> io = server_->OpenVolumeIo(volume, deadline);
  if (!io.ok()) return io;
  io->name = std::string(volume);
  io->source = Own(std::move(io->source), io->name);
  Schedule({.volume = io->name, .itself = false, .left_snapshots = true});
  return io;
}

void OwnedVolumes::Discard(absl::string_view volume) {
  Schedule({.volume = std::string(volume), .itself = true, .left_snapshots = true});
}

absl::StatusOr<std::shared_ptr<PageSource>> OwnedVolumes::Freeze(absl::string_view volume) {
  const std::string name = NewName(ForkPrefix(volume));
  if (absl::Status made = Made(admin_->SnapshotVolume(volume, name).status(), name); !made.ok()) {
    return made;
  }
  absl::StatusOr<std::shared_ptr<PageSource>> source =
      server_->OpenVolume(name, absl::Now() + kOpenTimeout);
  if (!source.ok()) {
    Schedule({.volume = name});
    return source.status();
  }
  return Own(*std::move(source), name);
}

std::shared_ptr<PageSource> OwnedVolumes::Own(std::shared_ptr<PageSource> source,
                                              std::string name) {
  PageSource* const raw = source.get();
  return {raw, [this, kept = std::move(source), name = std::move(name)](PageSource*) mutable {
            kept.reset();
            Schedule({.volume = std::move(name)});
          }};
}

void OwnedVolumes::Schedule(Unused unused) {
  {
    MutexLock lock(mu_);
    unused_.push_back(std::move(unused));
  }
  changed_.SignalAll();
}

void OwnedVolumes::Delete() {
  for (;;) {
    Unused unused;
    {
      MutexLock lock(mu_);
      while (unused_.empty() && !stopping_) changed_.Wait(mu_);
      if (unused_.empty()) return;
      unused = std::move(unused_.front());
      unused_.pop_front();
    }
    if (unused.left_snapshots) DeleteLeftSnapshots(unused.volume);
    if (unused.itself) DeleteNow(unused.volume);
  }
}

void OwnedVolumes::DeleteNow(const std::string& name) {
  const absl::Status deleted = admin_->DeleteVolume(name);
  if (deleted.ok() || IsNoVolume(deleted)) return;
  any_left_ = true;
  LogWarning(absl::StrCat(
      "volume ", name, ", which nobody uses any more, is left on the server: ", deleted.message()));
}

void OwnedVolumes::DeleteLeftSnapshots(absl::string_view volume) {
  const std::string prefix = ForkPrefix(volume);
  const std::string own = absl::StrCat(prefix, ".", getpid(), ".");
  const absl::StatusOr<std::vector<rpc::Volume>> volumes = admin_->ListVolumes();
  if (!volumes.ok()) {
    any_left_ = true;
    LogWarning(absl::StrCat("volumes whose names begin with ", prefix,
                            " may be left on the server: ", volumes.status().message()));
    return;
  }
  for (const rpc::Volume& other : *volumes) {
    if (absl::StartsWith(other.name(), prefix) && !absl::StartsWith(other.name(), own)) {
      DeleteNow(other.name());
    }
  }
}

}  // namespace faultline
