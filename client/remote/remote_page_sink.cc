// SPDX-License-Identifier: Apache-2.0
#include "client/remote/remote_page_sink.h"

#include <atomic>
#include <utility>

namespace faultline {
namespace {

// Whether a write that ended so will not be applied any more, if it was not yet.
bool IsAnswer(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kResourceExhausted:
      return true;
    default:  // also what says that nobody has answered
      return false;
  }
}

class RemotePageSink final : public PageSink {
 public:
  RemotePageSink(RequestLane<WriteRpc>* lane, const rpc::OpenVolumeResponse& volume, Codec codec)
      : lane_(lane),
        volume_id_(volume.volume_id()),
        epoch_(volume.epoch()),
        size_(PageCount::CoveringBytes(volume.size_bytes())),
        max_write_(volume.max_pages_per_request()),
        codec_(codec) {}

  void Write(std::span<const PageToWrite> pages, absl::Time deadline, WriteDone done) override {
    const uint64_t generation = generation_->load();
    WriteRpc::Call call;
    call.message = WriteMessage({volume_id_, epoch_, generation}, pages.size());
    for (const PageToWrite& page : pages) {
      if (page.bytes == nullptr) {
        call.message.AddZero(page.page);
      } else {
        call.message.Add(page.page, PageBytes(page.bytes, kPageSize), codec_);
      }
    }
    call.deadline = deadline;
    call.done = [newest = generation_, generation,
                 done = std::move(done)](absl::Status status) mutable {
      // Once, for all that were under way when the connection broke.
      if (uint64_t same = generation; !IsAnswer(status)) {
        newest->compare_exchange_strong(same, generation + 1);
      }
      std::move(done)(std::move(status));
    };
    lane_->Submit(std::move(call));
  }

  PageCount size() const override { return size_; }
  PageCount max_write() const override { return max_write_; }

 private:
  RequestLane<WriteRpc>* const lane_;
  const uint64_t volume_id_;
  const uint64_t epoch_;
  const PageCount size_;
  const PageCount max_write_;
  const Codec codec_;
  // Shared with the writes under way, which may end after the sink.
  const std::shared_ptr<std::atomic<uint64_t>> generation_ =
      std::make_shared<std::atomic<uint64_t>>(0);
};

}  // namespace

std::shared_ptr<PageSink> NewRemotePageSink(RequestLane<WriteRpc>* lane,
                                            const rpc::OpenVolumeResponse& volume, Codec codec) {
  return std::make_shared<RemotePageSink>(lane, volume, codec);
}

}  // namespace faultline
