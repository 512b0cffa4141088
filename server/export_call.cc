// SPDX-License-Identifier: Apache-2.0
#include "server/export_call.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "proto/page_batch.h"
#include "server/async_call.h"
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

// Owns itself, see AsyncCall. Either a write or a task is under way, never both, so there is
// nothing to lock.
class ExportCall final : public AsyncCall, private CallSet::Call {
 public:
  ExportCall(rpc::AdminService::AsyncService* service, const TransferEnvironment& environment)
      : AsyncCall(environment.loop), service_(service), environment_(environment) {}

 private:
  void AskForCall(CallLoop::Event* event) override {
    service_->RequestExportVolume(context(), &request_, &rpc_, queue(), queue(), event);
  }

  void OnCall() override {
    (new ExportCall(service_, environment_))->AwaitCall();
    caller_ = environment_.access->CallerOf(*context());
    if (environment_.calls->Add(this)) {
      SubmitNext();
    } else {
      EndWith(DrainingError());
    }
  }

  void SubmitNext() {
    if (!environment_.workers->Submit(caller_.account->id(), /*cost=*/1, [this] { SendNext(); })) {
      EndWith(TooManyCallsError());
    }
  }

  void SendNext() {
    if (volume_ == nullptr) {
      absl::StatusOr<std::shared_ptr<Volume>> volume =
          environment_.access->Find(caller_, request_.name(), VolumeRole::kReader);
      environment_.access->Audit(caller_, {"ExportVolume", request_.name()}, volume.status())
          .IgnoreError();
      if (!volume.ok()) {
        EndWith(volume.status());
        return;
      }
      volume_ = *std::move(volume);
      const VolumeInfo info = volume_->info();
      response_.set_size_bytes(info.size_bytes);
      end_ = PageIndex() + info.size();
    }
    response_.mutable_batch()->Clear();
    if (absl::Status status = FillBatch(); !status.ok()) {
      EndWith(status);
    } else if (next_ == end_) {
      rpc_.WriteAndFinish(response_, grpc::WriteOptions(), grpc::Status::OK, &finish_done_);
    } else {
      Hold();
      rpc_.Write(response_, &write_done_);
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

  void OnWriteDone(bool ok) {
    if (ok) {
      SubmitNext();
    } else {
      EndWith(absl::CancelledError("the client went away"));
    }
  }

  void EndWith(const absl::Status& status) { rpc_.Finish(ToRpcStatus(status), &finish_done_); }

  void OnFinishDone(bool) {}

  void OnDone() override {
    environment_.calls->Remove(this);
    delete this;
  }

  rpc::AdminService::AsyncService* const service_;
  const TransferEnvironment environment_;
  rpc::ExportVolumeRequest request_;
  Caller caller_;
  std::shared_ptr<Volume> volume_;
  PageIndex next_;
  PageIndex end_;
  PageCount ahead_ = kFewPages;
  rpc::ExportVolumeResponse response_;
  grpc::ServerAsyncWriter<rpc::ExportVolumeResponse> rpc_{context()};
  Then<ExportCall, &ExportCall::OnWriteDone> write_done_{this};
  Then<ExportCall, &ExportCall::OnFinishDone> finish_done_{this};
};

}  // namespace

void ServeExports(rpc::AdminService::AsyncService* service,
                  const TransferEnvironment& environment) {
  (new ExportCall(service, environment))->AwaitCall();
}

}  // namespace faultline
