// SPDX-License-Identifier: Apache-2.0
#include "client/remote/page_server.h"

#include <utility>
#include <vector>

#include "client/remote/completion_threads.h"
#include "client/remote/server_connection.h"
#include "client/remote/server_list.h"
#include "client/remote/several_servers.h"

namespace faultline {
namespace {

using Wait = ServerConnection::Wait;

class OneServer final : public PageServer {
 public:
  explicit OneServer(const PageServerOptions& options)
      : threads_(options.threads),
        connection_(options.address, options.tls, ServerConnection::Use::kOnly, options,
                    &threads_) {}

  ~OneServer() override {
    connection_.Shutdown();
    threads_.Stop();
  }

  absl::StatusOr<std::shared_ptr<PageSource>> OpenVolume(absl::string_view volume,
                                                         absl::Time deadline) override {
    const absl::StatusOr<rpc::OpenVolumeResponse> opened =
        connection_.OpenForReading(volume, Wait::kForConnection, deadline);
    if (!opened.ok()) return opened.status();
    return connection_.NewSource(*opened, std::make_shared<FetchStages>());
  }

  absl::StatusOr<VolumeIo> OpenVolumeIo(absl::string_view volume, absl::Time deadline) override {
    rpc::OpenVolumeRequest request;
    request.set_volume(std::string(volume));
    request.set_access(rpc::OpenVolumeRequest::WRITE);
    const absl::StatusOr<rpc::OpenVolumeResponse> opened =
        connection_.Open(request, Wait::kForConnection, deadline);
    if (!opened.ok()) return opened.status();
    return VolumeIo{connection_.NewSource(*opened, std::make_shared<FetchStages>()),
                    connection_.NewSink(*opened)};
  }

  absl::StatusOr<WorkingSet> GetWorkingSet(absl::string_view volume, absl::Time deadline) override {
    return connection_.GetWorkingSet(volume, Wait::kForConnection, deadline);
  }

  absl::Status MergeWorkingSet(absl::string_view volume, const WorkingSet& pages,
                               absl::Time deadline) override {
    return connection_.MergeWorkingSet(volume, pages, Wait::kForConnection, deadline);
  }

  bool IsReachable(absl::Duration patience) override {
    return connection_.WaitForConnected(patience);
  }

  std::vector<PageServerStats> Stats() override {
    return {{.address = connection_.address(),
             .is_connected = connection_.State() == GRPC_CHANNEL_READY,
             .fetches = connection_.fetches()}};
  }

  Pollable* pollable() override { return &threads_; }

 private:
  CompletionThreads threads_;
  ServerConnection connection_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<PageServer>> PageServer::Create(const PageServerOptions& options) {
  absl::StatusOr<std::vector<ServerEntry>> servers = ParseServers(options.address, options.tls);
  if (!servers.ok()) return servers.status();
  if (options.threads < 1 || options.max_requests_in_flight < 1) {
    return absl::InvalidArgumentError(
        "a page server connection needs at least one thread and one request in flight");
  }
  if (servers->size() > 1 || servers->front().is_name) {
    return NewSeveralServers(*std::move(servers), options);
  }
  return std::make_unique<OneServer>(options);
}

}  // namespace faultline
