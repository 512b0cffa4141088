// SPDX-License-Identifier: Apache-2.0
#include "client/remote/roaming_writer.h"

#include <absl/strings/str_cat.h>

#include <utility>

#include "proto/log.h"

namespace faultline {

class RoamingWriter::Sink final : public PageSink {
 public:
  explicit Sink(std::shared_ptr<RoamingWriter> writer) : writer_(std::move(writer)) {}

  void Write(std::span<const PageToWrite> pages, absl::Time deadline, WriteDone done) override {
    writer_->Write(pages, deadline, std::move(done));
  }
  PageCount size() const override { return writer_->size_; }
  PageCount max_write() const override { return writer_->max_write_; }

 private:
  const std::shared_ptr<RoamingWriter> writer_;
};

rpc::OpenVolumeRequest RoamingWriter::OpenRequest(absl::string_view volume, uint64_t writer) {
  rpc::OpenVolumeRequest request;
  request.set_volume(std::string(volume));
  request.set_access(rpc::OpenVolumeRequest::WRITE);
  request.set_writer(writer);
  return request;
}

RoamingWriter::RoamingWriter(std::string name, uint64_t writer, Peer* peer,
                             const rpc::OpenVolumeResponse& opened)
    : name_(std::move(name)),
      writer_(writer),
      identity_(opened.identity()),
      size_(PageCount::CoveringBytes(opened.size_bytes())),
      max_write_(opened.max_pages_per_request()),
      volume_(std::make_shared<SharedVolume>(name_)) {
  Settle(peer, opened);
}

std::shared_ptr<PageSink> RoamingWriter::NewSink() {
  return std::make_shared<Sink>(shared_from_this());
}

bool RoamingWriter::is_settled() const {
  MutexLock lock(mu_);
  return fenced_ || peer_->usable();
}

const Peer* RoamingWriter::peer() const {
  MutexLock lock(mu_);
  return peer_;
}

RoamingWriter::Writes RoamingWriter::Settle(Peer* peer, const rpc::OpenVolumeResponse& opened) {
  std::shared_ptr<PageSink> sink = peer->connection.NewSink(opened);
  volume_->Add({peer, peer->connection.NewSource(opened, volume_->stages)});
  Peer* before;
  Writes left;
  {
    MutexLock lock(mu_);
    before = std::exchange(peer_, peer);
    sink_.swap(sink);
    epoch_ = opened.epoch();
    left.swap(under_way_);
  }
  if (before != nullptr) volume_->Remove(before);
  return left;
}

absl::Status RoamingWriter::Move(Peer* peer, absl::Time deadline) {
  rpc::OpenVolumeRequest request = OpenRequest(name_, writer_);
  request.set_identity(identity_);
  {
    MutexLock lock(mu_);
    request.set_from_epoch(epoch_);
  }
  const absl::StatusOr<rpc::OpenVolumeResponse> opened =
      peer->connection.Open(request, ServerConnection::Wait::kNever, deadline);
  if (absl::IsFailedPrecondition(opened.status())) {
    Writes left;
    {
      MutexLock lock(mu_);
      fenced_ = true;
      left.swap(under_way_);
    }
    EndAll(std::move(left), opened.status());
    return opened.status();
  }
  if (!opened.ok()) return opened.status();
  if (PageCount(opened->max_pages_per_request()) < max_write_) {
    return absl::InternalError(absl::StrCat("page server ", peer->server.address,
                                            " takes fewer pages at a time than the one before"));
  }
  Writes left = Settle(peer, *opened);
  peer->failovers.fetch_add(1, std::memory_order_relaxed);
  LogInfo(absl::StrCat("volume \"", name_, "\" is written at page server ", peer->server.address,
                       " from now on"));
  EndAll(std::move(left), absl::UnavailableError(absl::StrCat("the writer of volume \"", name_,
                                                              "\" has moved to page server ",
                                                              peer->server.address)));
  return absl::OkStatus();
}

void RoamingWriter::Write(std::span<const PageToWrite> pages, absl::Time deadline,
                          PageSink::WriteDone done) {
  std::shared_ptr<PageSink> sink;
  Peer* peer = nullptr;
  uint64_t id = 0;
  {
    MutexLock lock(mu_);
    if (!fenced_) {
      sink = sink_;
      peer = peer_;
      id = next_id_++;
      under_way_[id] = std::move(done);
    }
  }
  if (sink == nullptr) {
    return std::move(done)(absl::FailedPreconditionError(
        absl::StrCat("another writer has opened volume \"", name_, "\"")));
  }
  sink->Write(pages, deadline, [self = shared_from_this(), id, peer](absl::Status status) {
    self->OnWritten(id, peer, std::move(status));
  });
}

void RoamingWriter::OnWritten(uint64_t id, Peer* peer, absl::Status status) {
  if (absl::IsUnavailable(status)) {
    peer->ready = false;  // looked at again in a moment
  } else if (!absl::IsCancelled(status) && !absl::IsDeadlineExceeded(status)) {
    peer->Heard(Peer::Clock::now());
  }
  PageSink::WriteDone done;
  {
    MutexLock lock(mu_);
    const auto found = under_way_.find(id);
    if (found == under_way_.end()) return;  // its writer has moved meanwhile
    done = std::move(found->second);
    under_way_.erase(found);
  }
  std::move(done)(std::move(status));
}

void RoamingWriter::EndAll(Writes writes, const absl::Status& status) {
  for (auto& [id, done] : writes) std::move(done)(status);
}

}  // namespace faultline
