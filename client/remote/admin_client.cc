// SPDX-License-Identifier: Apache-2.0
#include "client/remote/admin_client.h"

#include <absl/strings/str_cat.h>
#include <absl/time/clock.h>
#include <grpcpp/client_context.h>

#include <utility>

#include "client/remote/channel.h"
#include "client/remote/rpc_status.h"
#include "client/remote/server_list.h"
#include "client/remote/stall_guard.h"
#include "proto/admin.grpc.pb.h"
#include "proto/pager.grpc.pb.h"
#include "proto/working_set_message.h"

namespace faultline {
namespace {

// How long a connection to any of several servers may take before the first of them has to say why
// there is none.
constexpr absl::Duration kConnectPatience = absl::Seconds(3);
constexpr absl::Duration kConnectTick = absl::Milliseconds(20);

class GrpcAdminClient final : public AdminClient {
 public:
  GrpcAdminClient(AdminClientOptions options, const std::vector<ServerEntry>& servers)
      : options_(std::move(options)) {
    for (const ServerEntry& server : servers) {
      // gRPC looks a name up, and takes the first of its addresses that answers.
      const std::string target = absl::StrCat(server.is_name ? "dns:///" : "", server.address);
      servers_.emplace_back(target, ChannelMaker(target, options_.tls).New(ChannelUse::kOnly));
    }
  }

  absl::StatusOr<rpc::Volume> CreateVolume(const rpc::CreateVolumeRequest& request) override {
    return Call(&Stub::CreateVolume, request);
  }

  absl::StatusOr<std::vector<rpc::Volume>> ListVolumes() override {
    absl::StatusOr<rpc::ListVolumesResponse> response =
        Call(&Stub::ListVolumes, rpc::ListVolumesRequest());
    if (!response.ok()) return response.status();
    return std::vector<rpc::Volume>(std::make_move_iterator(response->mutable_volumes()->begin()),
                                    std::make_move_iterator(response->mutable_volumes()->end()));
  }

  absl::StatusOr<rpc::Volume> StatVolume(absl::string_view name) override {
    rpc::StatVolumeRequest request;
    request.set_name(std::string(name));
    return Call(&Stub::StatVolume, request);
  }

  absl::StatusOr<rpc::Volume> SnapshotVolume(absl::string_view volume,
                                             absl::string_view snapshot) override {
    rpc::SnapshotVolumeRequest request;
    request.set_volume(std::string(volume));
    request.set_snapshot(std::string(snapshot));
    return Call(&Stub::SnapshotVolume, request);
  }

  absl::StatusOr<rpc::Volume> CloneVolume(absl::string_view snapshot,
                                          absl::string_view volume) override {
    rpc::CloneVolumeRequest request;
    request.set_snapshot(std::string(snapshot));
    request.set_volume(std::string(volume));
    return Call(&Stub::CloneVolume, request);
  }

  absl::StatusOr<rpc::Volume> TrimVolume(const rpc::TrimVolumeRequest& request) override {
    return Call(&Stub::TrimVolume, request);
  }

  absl::Status DeleteVolume(absl::string_view name) override {
    rpc::DeleteVolumeRequest request;
    request.set_name(std::string(name));
    return Call(&Stub::DeleteVolume, request).status();
  }

  absl::StatusOr<rpc::Volume> SetVolumeRole(absl::string_view name, absl::string_view identity,
                                            rpc::VolumeRole role) override {
    rpc::SetVolumeRoleRequest request;
    request.set_name(std::string(name));
    request.set_identity(std::string(identity));
    request.set_role(role);
    return Call(&Stub::SetVolumeRole, request);
  }

  absl::StatusOr<WorkingSet> GetWorkingSet(absl::string_view name) override {
    const absl::StatusOr<rpc::Volume> volume = StatVolume(name);
    if (!volume.ok()) return volume.status();
    rpc::GetWorkingSetRequest request;
    request.set_volume_id(volume->id());
    const absl::StatusOr<rpc::GetWorkingSetResponse> response =
        Call<rpc::PageService>(&rpc::PageService::Stub::GetWorkingSet, request);
    if (!response.ok()) return response.status();
    return DecodeWorkingSet(PageCount::CoveringBytes(volume->size_bytes()), response->pages());
  }

  absl::Status ClearWorkingSet(absl::string_view name) override {
    rpc::ClearWorkingSetRequest request;
    request.set_name(std::string(name));
    return Call(&Stub::ClearWorkingSet, request).status();
  }

  absl::StatusOr<rpc::ServerStatus> GetServerStatus() override {
    return Call(&Stub::GetServerStatus, rpc::GetServerStatusRequest());
  }

  absl::StatusOr<rpc::Volume> ImportVolume(const rpc::ImportVolumeRequest::Begin& begin,
                                           NextBatch next) override {
    const Server& server = Reachable();
    const auto stub = rpc::AdminService::NewStub(server.channel);
    grpc::ClientContext context;
    StallGuard guard(&context, options_.stall_timeout);
    rpc::Volume volume;
    const auto writer = stub->ImportVolume(&context, &volume);
    const absl::StatusOr<bool> sent = SendImport(writer.get(), &guard, begin, next);
    if (!sent.ok()) context.TryCancel();
    const grpc::Status status = writer->Finish();
    if (!sent.ok()) return sent.status();
    if (guard.stalled()) return StallError(server);
    if (!status.ok()) return CallError(status, server.address);
    if (!*sent) {
      return absl::InternalError(absl::StrCat("page server ", server.address,
                                              " ended the import before all pages were sent"));
    }
    return volume;
  }

  absl::Status ExportVolume(absl::string_view name, OnBatch on_batch) override {
    rpc::ExportVolumeRequest request;
    request.set_name(std::string(name));
    const Server& server = Reachable();
    const auto stub = rpc::AdminService::NewStub(server.channel);
    grpc::ClientContext context;
    StallGuard guard(&context, options_.stall_timeout);
    const auto reader = stub->ExportVolume(&context, request);
    rpc::ExportVolumeResponse response;
    absl::Status taken;
    while (taken.ok() && reader->Read(&response)) {
      taken = on_batch(response.size_bytes(), response.batch());
      guard.Moved();
    }
    if (!taken.ok()) context.TryCancel();
    const grpc::Status status = reader->Finish();
    if (!taken.ok()) return taken;
    if (guard.stalled()) return StallError(server);
    return status.ok() ? absl::OkStatus() : CallError(status, server.address);
  }

 private:
  using Stub = rpc::AdminService::Stub;

  struct Server {
    Server(std::string at, std::shared_ptr<grpc::Channel> through)
        : address(std::move(at)), channel(std::move(through)) {}
    std::string address;
    std::shared_ptr<grpc::Channel> channel;
  };

  // The first that there is a connection to; it is tried to make some where there is none. Where
  // none can be made in time, the first, whose call then says why.
  const Server& Reachable() {
    const absl::Time end = absl::Now() + kConnectPatience;
    while (servers_.size() > 1 && absl::Now() < end) {
      for (const Server& server : servers_) {
        // Whoever waits for one lets gRPC go on with all of them.
        if (server.channel->WaitForConnected(absl::ToChronoTime(absl::Now() + kConnectTick))) {
          return server;
        }
      }
    }
    return servers_.front();
  }

  template <typename Service = rpc::AdminService, typename Request, typename Response>
  absl::StatusOr<Response> Call(grpc::Status (Service::Stub::*method)(grpc::ClientContext*,
                                                                      const Request&, Response*),
                                const Request& request) {
    const Server& server = Reachable();
    const auto stub = Service::NewStub(server.channel);
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + options_.call_timeout));
    Response response;
    const grpc::Status status = ((*stub).*method)(&context, request, &response);
    if (!status.ok()) return CallError(status, server.address);
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

  absl::Status StallError(const Server& server) const {
    return absl::DeadlineExceededError(absl::StrCat("the transfer with page server ",
                                                    server.address, " has not moved for ",
                                                    absl::FormatDuration(options_.stall_timeout)));
  }

  const AdminClientOptions options_;
  std::vector<Server> servers_;  // constant after construction
};

}  // namespace

absl::StatusOr<std::unique_ptr<AdminClient>> AdminClient::Create(
    const AdminClientOptions& options) {
  const absl::StatusOr<std::vector<ServerEntry>> servers =
      ParseServers(options.address, options.tls);
  if (!servers.ok()) return servers.status();
  return std::make_unique<GrpcAdminClient>(options, *servers);
}

}  // namespace faultline
