// SPDX-License-Identifier: Apache-2.0
#include "client/remote/admin_client.h"

#include <absl/strings/str_cat.h>
#include <absl/time/clock.h>
#include <grpcpp/client_context.h>

#include <span>
#include <utility>

#include "client/remote/channel.h"
#include "client/remote/rpc_status.h"
#include "client/remote/stall_guard.h"
#include "proto/admin.grpc.pb.h"
#include "proto/pager.grpc.pb.h"

namespace faultline {
namespace {

class GrpcAdminClient final : public AdminClient {
 public:
  explicit GrpcAdminClient(AdminClientOptions options)
      : options_(std::move(options)),
        channel_(NewChannel(options_.address)),
        stub_(rpc::AdminService::NewStub(channel_)),
        page_stub_(rpc::PageService::NewStub(channel_)) {}

  absl::StatusOr<rpc::Volume> CreateVolume(const rpc::CreateVolumeRequest& request) override {
    return Call(stub_.get(), &Stub::CreateVolume, request);
  }

  absl::StatusOr<std::vector<rpc::Volume>> ListVolumes() override {
    absl::StatusOr<rpc::ListVolumesResponse> response =
        Call(stub_.get(), &Stub::ListVolumes, rpc::ListVolumesRequest());
    if (!response.ok()) return response.status();
    return std::vector<rpc::Volume>(std::make_move_iterator(response->mutable_volumes()->begin()),
                                    std::make_move_iterator(response->mutable_volumes()->end()));
  }

  absl::StatusOr<rpc::Volume> StatVolume(absl::string_view name) override {
    rpc::StatVolumeRequest request;
    request.set_name(std::string(name));
    return Call(stub_.get(), &Stub::StatVolume, request);
  }

  absl::StatusOr<rpc::Volume> SnapshotVolume(absl::string_view volume,
                                             absl::string_view snapshot) override {
    rpc::SnapshotVolumeRequest request;
    request.set_volume(std::string(volume));
    request.set_snapshot(std::string(snapshot));
    return Call(stub_.get(), &Stub::SnapshotVolume, request);
  }

  absl::StatusOr<rpc::Volume> CloneVolume(absl::string_view snapshot,
                                          absl::string_view volume) override {
    rpc::CloneVolumeRequest request;
    request.set_snapshot(std::string(snapshot));
    request.set_volume(std::string(volume));
    return Call(stub_.get(), &Stub::CloneVolume, request);
  }

  absl::StatusOr<rpc::Volume> TrimVolume(const rpc::TrimVolumeRequest& request) override {
    return Call(stub_.get(), &Stub::TrimVolume, request);
  }

  absl::Status DeleteVolume(absl::string_view name) override {
    rpc::DeleteVolumeRequest request;
    request.set_name(std::string(name));
    return Call(stub_.get(), &Stub::DeleteVolume, request).status();
  }

  absl::StatusOr<PageSet> GetWorkingSet(absl::string_view name) override {
    const absl::StatusOr<rpc::Volume> volume = StatVolume(name);
    if (!volume.ok()) return volume.status();
    rpc::GetWorkingSetRequest request;
    request.set_volume_id(volume->id());
    const absl::StatusOr<rpc::GetWorkingSetResponse> response =
        Call(page_stub_.get(), &rpc::PageService::Stub::GetWorkingSet, request);
    if (!response.ok()) return response.status();
    const auto& runs = response->pages().runs();
    return PageSet::DecodeRuns(PageCount::CoveringBytes(volume->size_bytes()),
                               std::span(runs.data(), static_cast<size_t>(runs.size())));
  }

  absl::Status ClearWorkingSet(absl::string_view name) override {
    rpc::ClearWorkingSetRequest request;
    request.set_name(std::string(name));
    return Call(stub_.get(), &Stub::ClearWorkingSet, request).status();
  }

  absl::StatusOr<rpc::ServerStatus> GetServerStatus() override {
    return Call(stub_.get(), &Stub::GetServerStatus, rpc::GetServerStatusRequest());
  }

  absl::StatusOr<rpc::Volume> ImportVolume(const rpc::ImportVolumeRequest::Begin& begin,
                                           NextBatch next) override {
    grpc::ClientContext context;
    StallGuard guard(&context, options_.stall_timeout);
    rpc::Volume volume;
    const auto writer = stub_->ImportVolume(&context, &volume);
    const absl::StatusOr<bool> sent = SendImport(writer.get(), &guard, begin, next);
    if (!sent.ok()) context.TryCancel();
    const grpc::Status status = writer->Finish();
    if (!sent.ok()) return sent.status();
    if (guard.stalled()) return StallError();
    if (!status.ok()) return CallError(status, options_.address);
    if (!*sent) {
      return absl::InternalError(absl::StrCat("page server ", options_.address,
                                              " ended the import before all pages were sent"));
    }
    return volume;
  }

  absl::Status ExportVolume(absl::string_view name, OnBatch on_batch) override {
    rpc::ExportVolumeRequest request;
    request.set_name(std::string(name));
    grpc::ClientContext context;
    StallGuard guard(&context, options_.stall_timeout);
    const auto reader = stub_->ExportVolume(&context, request);
    rpc::ExportVolumeResponse response;
    absl::Status taken;
    while (taken.ok() && reader->Read(&response)) {
      taken = on_batch(response.size_bytes(), response.batch());
      guard.Moved();
    }
    if (!taken.ok()) context.TryCancel();
    const grpc::Status status = reader->Finish();
    if (!taken.ok()) return taken;
    if (guard.stalled()) return StallError();
    return status.ok() ? absl::OkStatus() : CallError(status, options_.address);
  }

 private:
  using Stub = rpc::AdminService::Stub;

  template <typename Service, typename Request, typename Response>
  absl::StatusOr<Response> Call(Service* stub,
                                grpc::Status (Service::*method)(grpc::ClientContext*,
                                                                const Request&, Response*),
                                const Request& request) {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + options_.call_timeout));
    Response response;
    const grpc::Status status = (stub->*method)(&context, request, &response);
    if (!status.ok()) return CallError(status, options_.address);
    return response;
  }

  // False where the server has ended the call before its time; it says why.
  static absl::StatusOr<bool> SendImport(grpc::ClientWriter<rpc::ImportVolumeRequest>* writer,
                                         StallGuard* guard,
                                         const rpc::ImportVolumeRequest::Begin& begin,
                                         NextBatch next) {
    rpc::ImportVolumeRequest message;
    *message.mutable_begin() = begin;
    if (!writer->Write(message)) return false;
    for (;;) {
      rpc::PageBatch* batch = message.mutable_batch();
      batch->Clear();
      const absl::StatusOr<bool> more = next(batch);
      if (!more.ok()) return more.status();
      guard->Moved();
      if (!*more) break;
      if (!writer->Write(message)) return false;
    }
    message.mutable_commit();
    return writer->Write(message, grpc::WriteOptions().set_last_message());
  }

  absl::Status StallError() const {
    return absl::DeadlineExceededError(absl::StrCat("the transfer with page server ",
                                                    options_.address, " has not moved for ",
                                                    absl::FormatDuration(options_.stall_timeout)));
  }

  const AdminClientOptions options_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<Stub> stub_;
  const std::unique_ptr<rpc::PageService::Stub> page_stub_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<AdminClient>> AdminClient::Create(
    const AdminClientOptions& options) {
  if (absl::Status status = CheckServerAddress(options.address); !status.ok()) return status;
  return std::make_unique<GrpcAdminClient>(options);
}

}  // namespace faultline
