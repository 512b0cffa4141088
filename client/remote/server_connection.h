// SPDX-License-Identifier: Apache-2.0
//
// ServerConnection: the lanes and calls to one page server.
#ifndef FAULTLINE_CLIENT_REMOTE_SERVER_CONNECTION_H_
#define FAULTLINE_CLIENT_REMOTE_SERVER_CONNECTION_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>
#include <absl/time/time.h>
#include <grpc/impl/codegen/connectivity_state.h>
#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "client/remote/channel.h"
#include "client/remote/completion_threads.h"
#include "client/remote/fetch_rpc.h"
#include "client/remote/page_server.h"
#include "client/remote/request_lane.h"
#include "client/remote/write_rpc.h"

namespace faultline {

// Thread-safe.
class ServerConnection {
 public:
  enum class Use { kOnly, kOneOfSeveral };

  // `threads` is borrowed: must outlive the connection, but be stopped before that is destroyed.
  // Of `options`, not the addresses.
  ServerConnection(const std::string& address, const ServerTls& tls, Use use,
                   const PageServerOptions& options, CompletionThreads* threads);
  // REQUIRES: Shutdown() was called, and the threads were stopped.
  ~ServerConnection() = default;

  // Ends what is under way with CANCELLED, and what is submitted from then on.
  void Shutdown();

  const std::string& address() const { return address_; }

  // One try, until `deadline`; where `wait` does not say so, none while there is no connection.
  enum class Wait { kForConnection, kNever };
  absl::StatusOr<rpc::OpenVolumeResponse> Open(const rpc::OpenVolumeRequest& request, Wait wait,
                                               absl::Time deadline);
  absl::StatusOr<rpc::OpenVolumeResponse> OpenForReading(absl::string_view volume, Wait wait,
                                                         absl::Time deadline);

  // `stages` is where its demand fetches are noted.
  std::shared_ptr<PageSource> NewSource(const rpc::OpenVolumeResponse& volume,
                                        std::shared_ptr<FetchStages> stages);
  std::shared_ptr<PageSink> NewSink(const rpc::OpenVolumeResponse& volume);

  absl::StatusOr<WorkingSet> GetWorkingSet(absl::string_view volume, Wait wait,
                                           absl::Time deadline);
  absl::Status MergeWorkingSet(absl::string_view volume, const WorkingSet& pages, Wait wait,
                               absl::Time deadline);

  // Tries to connect where that is not so.
  grpc_connectivity_state State() { return bulk_channel_->GetState(/*try_to_connect=*/true); }
  bool WaitForConnected(absl::Duration patience);

  uint64_t fetches() const { return fetches_.load(std::memory_order_relaxed); }

 private:
  ServerConnection(const std::string& address, const ChannelMaker& channels, Use use,
                   const PageServerOptions& options, CompletionThreads* threads);

  using Stub = rpc::PageService::Stub;
  template <typename Request, typename Response>
  using Method = grpc::Status (Stub::*)(grpc::ClientContext*, const Request&, Response*);

  template <typename Request, typename Response>
  absl::Status Call(Method<Request, Response> method, const Request& request, Wait wait,
                    absl::Time deadline, Response* response);
  absl::Status WorkingSetError(absl::Status status) const;

  const std::string address_;
  const Codec write_codec_;
  const std::shared_ptr<grpc::Channel> bulk_channel_;
  std::atomic<uint64_t> fetches_ = 0;
  RequestLane<FetchRpc> demand_;
  RequestLane<FetchRpc> prefetch_;
  RequestLane<FetchRpc> bulk_;
  RequestLane<WriteRpc> write_;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_REMOTE_SERVER_CONNECTION_H_
