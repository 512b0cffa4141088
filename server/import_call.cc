// SPDX-License-Identifier: Apache-2.0
#include "server/import_call.h"

#include <absl/strings/str_cat.h>

#include <memory>
#include <string>
#include <utility>

#include "proto/page_batch.h"
#include "server/async_call.h"
#include "server/rpc_status.h"
#include "server/unary_call.h"
#include "server/volume_message.h"

namespace faultline {
namespace {

// The steps of an import in their order: Begin, batches, Commit. Not thread-safe.
class ImportSteps {
 public:
  ImportSteps(const AccessControl* access, rpc::Volume* response)
      : access_(access), response_(response) {}

  // Call once, before Take().
  void SetCaller(Caller caller) { caller_ = std::move(caller); }

  // Takes one message in; an error ends the import, with nothing changed.
  absl::Status Take(const rpc::ImportVolumeRequest& request) {
    switch (request.step_case()) {
      case rpc::ImportVolumeRequest::kBegin:
        return Begin(request.begin());
      case rpc::ImportVolumeRequest::kBatch:
        return NamingVolume(TakeBatch(request.batch()));
      case rpc::ImportVolumeRequest::kCommit:
        return Commit();
      case rpc::ImportVolumeRequest::STEP_NOT_SET:
        break;
    }
    return NamingVolume(absl::InvalidArgumentError("a message holds no step of an import"));
  }

  bool committed() const { return committed_; }
  const std::string& name() const { return name_; }  // empty before a Begin
  const Caller& caller() const { return caller_; }

  // What the call ends with when the client sends nothing more and has not committed.
  absl::Status End() const {
    return NamingVolume(
        absl::InvalidArgumentError("the import ended without a Commit; nothing was changed"));
  }

  // Ends an import that is not committed and clears away what it has loaded.
  void Drop() { import_.reset(); }

 private:
  absl::Status Begin(const rpc::ImportVolumeRequest::Begin& begin) {
    if (import_ != nullptr) {
      return NamingVolume(absl::InvalidArgumentError("an import begins only once"));
    }
    name_ = begin.name();
    const absl::StatusOr<Durability> durability = ToDurability(begin.durability());
    if (!durability.ok()) return NamingVolume(durability.status());
    VolumeCatalog::ImportOptions options{.size_bytes = begin.size_bytes(),
                                         .durability = *durability,
                                         .replace = begin.replace(),
                                         .owner = caller_.identity,
                                         .only_id = {}};
    if (absl::Status status = CheckAccess(&options); !status.ok()) return status;
    absl::StatusOr<std::unique_ptr<VolumeCatalog::Import>> import =
        access_->catalog().StartImport(name_, options);
    if (!import.ok()) return access_->Veil(caller_, name_, import.status());
    import_ = *std::move(import);
    size_ = PageCount::CoveringBytes(begin.size_bytes());
    return absl::OkStatus();
  }

  // Whether the caller may make the volume or, where there is one, replace its content.
  absl::Status CheckAccess(VolumeCatalog::ImportOptions* options) {
    if (caller_.unrestricted) return absl::OkStatus();
    options->only_id = 0;
    if (!access_->catalog().Find(name_).ok()) {
      charged_ = caller_.identity;
      return access_->CheckMayMake(caller_, options->size_bytes);
    }
    const auto target = access_->Find(caller_, name_, VolumeRole::kWriter);
    if (!target.ok()) return target.status();
    options->only_id = (*target)->info().id;
    charged_ = (*target)->info().access.owner;
    return absl::OkStatus();
  }

  absl::Status TakeBatch(const rpc::PageBatch& batch) {
    if (import_ == nullptr) {
      return absl::InvalidArgumentError("an import must begin with a Begin and end with a Commit");
    }
    absl::StatusOr<PageCount> pages = CountPages(batch.runs(), size_, size_);
    if (!pages.ok()) return pages.status();
    if (absl::Status status = access_->CheckQuota(charged_, put_bytes_); !status.ok()) {
      return status;
    }
    return ForEachPage(
        batch,
        [this](PageIndex page, absl::string_view encoded) {
          if (absl::Status status = Advance(PageRange::Single(page)); !status.ok()) return status;
          if (absl::Status status = VerifyPage(page, encoded); !status.ok()) return status;
          // What is not stored reads as zero.
          if (IsEncodedZeroPage(encoded)) return absl::OkStatus();
          put_bytes_ += encoded.size();
          return import_->Put(page, encoded);
        },
        [this](PageRange zero) { return Advance(zero); });
  }

  absl::Status Advance(PageRange range) {
    if (range.first < next_) {
      return absl::InvalidArgumentError(
          absl::StrCat("page ", range.first.raw(),
                       " is out of order: an import's pages ascend, and the one before it was ",
                       next_.raw() - 1));
    }
    next_ = range.end();
    return absl::OkStatus();
  }

  absl::Status Commit() {
    if (import_ == nullptr) {
      return NamingVolume(
          absl::InvalidArgumentError("an import must begin with a Begin, before its Commit"));
    }
    const absl::StatusOr<VolumeInfo> info = import_->Commit();
    import_.reset();
    if (!info.ok()) return access_->Veil(caller_, name_, info.status());
    committed_ = true;
    return FillVolume(*access_, caller_, info, response_);
  }

  absl::Status NamingVolume(const absl::Status& status) const {
    if (status.ok() || name_.empty()) return status;
    return absl::Status(status.code(),
                        absl::StrCat("import of \"", name_, "\": ", status.message()));
  }

  const AccessControl* const access_;
  rpc::Volume* const response_;
  Caller caller_;
  std::string charged_;  // whose quota it goes to; empty: nobody's
  uint64_t put_bytes_ = 0;
  std::string name_;
  PageCount size_;
  PageIndex next_;
  std::unique_ptr<VolumeCatalog::Import> import_;
  bool committed_ = false;
};

// Owns itself, see AsyncCall. Either a read or a task is under way, never both, so there is nothing
// to lock.
class ImportCall final : public AsyncCall, private CallSet::Call {
 public:
  ImportCall(rpc::AdminService::AsyncService* service, const TransferEnvironment& environment)
      : AsyncCall(environment.loop),
        service_(service),
        environment_(environment),
        steps_(environment.access, &response_) {}

 private:
  void AskForCall(CallLoop::Event* event) override {
    service_->RequestImportVolume(context(), &rpc_, queue(), queue(), event);
  }

  void OnCall() override {
    (new ImportCall(service_, environment_))->AwaitCall();
    steps_.SetCaller(environment_.access->CallerOf(*context()));
    if (environment_.calls->Add(this)) {
      StartRead();
    } else {
      EndWith(DrainingError());
    }
  }

  void StartRead() {
    Hold();
    rpc_.Read(&request_, &read_done_);
  }

  void OnReadDone(bool ok) {
    // Also what an import leaves behind is cleared away by a worker.
    if (!environment_.workers->Submit(steps_.caller().account->id(), /*cost=*/1,
                                      [this, ok] { ok ? TakeMessage() : EndOfMessages(); })) {
      EndWith(TooManyCallsError());
    }
  }

  void TakeMessage() {
    if (absl::Status status = steps_.Take(request_); !status.ok()) {
      EndWith(status);
    } else if (steps_.committed()) {
      EndWith(absl::OkStatus());
    } else {
      StartRead();
    }
  }

  void EndOfMessages() { EndWith(steps_.End()); }

  void EndWith(const absl::Status& status) {
    steps_.Drop();
    environment_.access->Audit(steps_.caller(), {"ImportVolume", steps_.name()}, status)
        .IgnoreError();
    if (status.ok()) {
      rpc_.Finish(response_, grpc::Status::OK, &finish_done_);
    } else {
      rpc_.FinishWithError(ToRpcStatus(status), &finish_done_);
    }
  }

  void OnFinishDone(bool) {}

  void OnDone() override {
    environment_.calls->Remove(this);
    delete this;
  }

  rpc::AdminService::AsyncService* const service_;
  const TransferEnvironment environment_;
  rpc::Volume response_;
  ImportSteps steps_;
  rpc::ImportVolumeRequest request_;
  grpc::ServerAsyncReader<rpc::Volume, rpc::ImportVolumeRequest> rpc_{context()};
  Then<ImportCall, &ImportCall::OnReadDone> read_done_{this};
  Then<ImportCall, &ImportCall::OnFinishDone> finish_done_{this};
};

}  // namespace

void ServeImports(rpc::AdminService::AsyncService* service,
                  const TransferEnvironment& environment) {
  (new ImportCall(service, environment))->AwaitCall();
}

}  // namespace faultline
