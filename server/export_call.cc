// SPDX-License-Identifier: Apache-2.0
#include "server/export_call.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "proto/page_batch.h"
#include "server/rpc_status.h"
#include "server/unary_call.h"

namespace faultline {
namespace {

// A batch ends after the page that fills this much.
constexpr size_t kBatchBytes = size_t{1} << 20;
// The pages that one batch looks at: few where there is data; more and more through a hole, so that
// one of any size takes few messages.
constexpr PageCount kFewPages(1024);
constexpr PageCount kManyPages(uint64_t{1} << 20);

// Owned by gRPC from the moment it is returned to it; deletes itself at the end. Either a write or
// a task is under way, never both, so there is nothing to lock.
class ExportCall final : public grpc::ServerWriteReactor<rpc::ExportVolumeResponse>,
                         private CallSet::Call {
 public:
  ExportCall(const TransferEnvironment& environment, std::string name)
      : environment_(environment), name_(std::move(name)) {}

  void Start() {
    if (environment_.calls->Add(this)) {
      SubmitNext();
    } else {
      Finish(ToRpcStatus(DrainingError()));
    }
  }

 private:
  void SubmitNext() {
    if (!environment_.workers->Submit([this] { SendNext(); })) {
      Finish(ToRpcStatus(TooManyCallsError()));
    }
  }

  void SendNext() {
    if (volume_ == nullptr) {
      absl::StatusOr<std::shared_ptr<Volume>> volume = environment_.catalog->Find(name_);
      if (!volume.ok()) {
        Finish(ToRpcStatus(volume.status()));
        return;
      }
      volume_ = *std::move(volume);
      const VolumeInfo info = volume_->info();
      response_.set_size_bytes(info.size_bytes);
      end_ = PageIndex() + info.size();
    }
    response_.mutable_batch()->Clear();
    if (absl::Status status = FillBatch(); !status.ok()) {
      Finish(ToRpcStatus(status));
    } else if (next_ == end_) {
      StartWriteAndFinish(&response_, grpc::WriteOptions(), grpc::Status::OK);
    } else {
      StartWrite(&response_);
    }
  }

  // Reads from next_ on, and moves it past what the batch holds.
  absl::Status FillBatch() {
    PageBatchBuilder builder(response_.mutable_batch());
    const PageRange range{next_, std::min(ahead_, end_ - next_)};
    bool is_full = false;
    absl::Status status = volume_->Read(
        range,
        [this, &builder, &is_full](PageIndex page, absl::string_view encoded) {
          builder.Add(page, encoded);
          next_ = page + PageCount(1);
          is_full = builder.payload_bytes() >= kBatchBytes;
          // Stops the read; not an error of the volume.
          return is_full ? absl::CancelledError() : absl::OkStatus();
        },
        [this, &builder](PageRange zero) {
          builder.AddZero(zero);
          next_ = zero.end();
          return absl::OkStatus();
        });
    if (is_full) status = absl::OkStatus();
    const bool is_hole = builder.payload_bytes() == 0;
    ahead_ = is_hole ? std::min(PageCount(ahead_.raw() * 2), kManyPages) : kFewPages;
    return status;
  }

  void OnWriteDone(bool ok) override {
    if (ok) {
      SubmitNext();
    } else {
      Finish(ToRpcStatus(absl::CancelledError("the client went away")));
    }
  }

  void OnDone() override {
    environment_.calls->Remove(this);
    delete this;
  }

  const TransferEnvironment environment_;
  const std::string name_;
  std::shared_ptr<Volume> volume_;
  PageIndex next_;
  PageIndex end_;
  PageCount ahead_ = kFewPages;
  rpc::ExportVolumeResponse response_;
};

}  // namespace

grpc::ServerWriteReactor<rpc::ExportVolumeResponse>* StartExportCall(
    const TransferEnvironment& environment, std::string name) {
  auto* call = new ExportCall(environment, std::move(name));
  call->Start();
  return call;
}

}  // namespace faultline
