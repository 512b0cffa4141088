// SPDX-License-Identifier: Apache-2.0
//
// FakePager: a Pager that serves no memory. It takes what is attached, as far as the mappings are
// right and the descriptor is a userfaultfd, and tells tests about it. Thread-safe.
#ifndef FAULTLINE_CLIENT_ATTACH_FAKE_PAGER_H_
#define FAULTLINE_CLIENT_ATTACH_FAKE_PAGER_H_

#include <absl/strings/str_cat.h>
#include <unistd.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "client/pager.h"
#include "proto/mutex.h"

namespace faultline {

class FakePager : public Pager {
 public:
  absl::StatusOr<AttachmentId> Attach(AttachRequest request) override {
    char target[64] = "";
    const std::string link = absl::StrCat("/proc/self/fd/", request.uffd.get());
    [[maybe_unused]] const ssize_t n = readlink(link.c_str(), target, sizeof target - 1);
    if (std::string(target) != "anon_inode:[userfaultfd]") {
      return absl::InvalidArgumentError(absl::StrCat("the descriptor is no userfaultfd: ", target));
    }
    absl::Status status = CheckMappings(request.mappings, request.source->size());
    if (!status.ok()) return status;
    MutexLock lock(mu_);
    const AttachmentId id = next_id_++;
    attached_.emplace(id, std::move(request));
    changed_.SignalAll();
    return id;
  }

  absl::StatusOr<AttachmentId> Adopt(AdoptRequest) override {
    return absl::UnimplementedError("nothing is left to a FakePager");
  }

  absl::Status Detach(AttachmentId id) override {
    MutexLock lock(mu_);
    if (attached_.erase(id) == 0) return absl::NotFoundError(absl::StrCat("no attachment ", id));
    changed_.SignalAll();
    return absl::OkStatus();
  }

  void Perform(AttachmentId, FarCommand, FarDone done) override {
    std::move(done)(absl::UnimplementedError("no far memory here"));
  }

  std::vector<AttachmentStats> Attachments() const override {
    MutexLock lock(mu_);
    std::vector<AttachmentStats> all;
    for (const auto& [id, request] : attached_) {
      AttachmentStats& stats = all.emplace_back();
      stats.id = id;
      stats.pid = request.pid;
      stats.volume = request.volume;
      stats.regions = request.mappings.size();
    }
    return all;
  }

  PagerMetrics Metrics() const override { return {}; }

  absl::StatusOr<MemoryMap> Map(AttachmentId, const MapView&) const override { return MemoryMap(); }
  absl::StatusOr<std::vector<MemoryEvent>> Events(AttachmentId, uint64_t) const override {
    return std::vector<MemoryEvent>();
  }

  void Stop() override {
    MutexLock lock(mu_);
    attached_.clear();
    changed_.SignalAll();
  }

  // Waits until there are exactly `count` attachments.
  void WaitForAttachments(size_t count) {
    MutexLock lock(mu_);
    while (attached_.size() != count) changed_.Wait(mu_);
  }

  AttachmentOptions OptionsOf(AttachmentId id) const {
    MutexLock lock(mu_);
    return attached_.at(id).options;
  }

  std::vector<Mapping> MappingsOf(AttachmentId id) const {
    MutexLock lock(mu_);
    return attached_.at(id).mappings;
  }

 private:
  mutable Mutex mu_;
  CondVar changed_;
  AttachmentId next_id_ ABSL_GUARDED_BY(mu_) = 1;
  std::map<AttachmentId, AttachRequest> attached_ ABSL_GUARDED_BY(mu_);
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_ATTACH_FAKE_PAGER_H_
