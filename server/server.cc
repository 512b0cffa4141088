// SPDX-License-Identifier: Apache-2.0
#include "server/server.h"

#include <absl/strings/str_cat.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_credentials_options.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <limits>
#include <optional>
#include <utility>

#include "proto/page_codec.h"
#include "server/access_control.h"
#include "server/admin_service.h"
#include "server/call_loop.h"
#include "server/call_set.h"
#include "server/counters.h"
#include "server/handshake_log.h"
#include "server/health_service.h"
#include "server/listener.h"
#include "server/page_service.h"
#include "server/page_window.h"
#include "server/server_metrics.h"
#include "server/server_page.h"
#include "server/worker_pool.h"

namespace faultline {
namespace {

// Calls of the control plane that may wait for a thread.
constexpr size_t kMaxQueuedControlCalls = 1024;
constexpr size_t kMaxQueuedControlCallsOfClient = kMaxQueuedControlCalls / 4;
// A quarter of the window for one stream: so that three clients that do not read their answers
// leave room for others.
constexpr uint64_t kStreamsShare = 4;
constexpr uint64_t kMinPagesInFlight = 64;
// Of a message, beside its pages: ids, 26 bytes for each run at most, an error's text.
constexpr uint64_t kMessageOverheadBytes = 4096;
constexpr uint64_t kRunBytes = 26;

// A client may ping this often while it waits; ours does every 10 s.
constexpr int kMinPingIntervalMs = 5'000;
// The server's own pings, so that the streams of a client that has vanished end.
constexpr int kKeepaliveTimeMs = 30'000;
constexpr int kKeepaliveTimeoutMs = 20'000;
// What calls that are not ours (health watches) get at the end of a drain.
constexpr std::chrono::milliseconds kForeignCallsGrace(100);

absl::Status CheckOptions(const ServerOptions& options) {
  if (options.listen.empty()) {
    return absl::InvalidArgumentError("no address to listen on; give at least one --listen");
  }
  for (const std::string& address : options.listen) {
    if (absl::Status status = CheckListenAddress(address); !status.ok()) return status;
    if (options.tls.any() || options.allow_plaintext) continue;
    if (absl::Status status = CheckOnlyThisHost(address); !status.ok()) return status;
  }
  if (absl::Status status = CheckTlsFiles(options.tls); !status.ok()) return status;
  if (!options.admins.empty() && !options.tls.any()) {
    return absl::InvalidArgumentError(
        "--admin names clients by their certificates, which needs --tls-cert, --tls-key and "
        "--tls-client-ca; without them every client may do everything");
  }
  for (const std::string& admin : options.admins) {
    if (absl::Status status = CheckIdentity(admin); !status.ok()) return status;
  }
  const uint64_t pages = options.max_pages_per_request;
  if (pages == 0 || pages > kMaxVolumePages / kPageSize) {
    return absl::InvalidArgumentError(
        absl::StrCat("--max-pages-per-request is ", pages, "; it must be at least 1"));
  }
  const uint64_t largest = pages * (kMaxEncodedPageBytes + kRunBytes) + kMessageOverheadBytes;
  if (options.max_message_bytes < largest ||
      options.max_message_bytes > std::numeric_limits<int>::max()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--max-message-bytes is ", options.max_message_bytes,
                     "; it must be below 2GiB and, for --max-pages-per-request=", pages,
                     ", at least ", largest));
  }
  const uint64_t least = std::max(kMinPagesInFlight, pages * 2);
  if (options.max_pages_in_flight < least) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--max-pages-in-flight is ", options.max_pages_in_flight, "; it must be at least ", least,
        ", that is 64 and twice --max-pages-per-request"));
  }
  if (options.max_streams < 1 || options.data_threads < 1 || options.control_threads < 1) {
    return absl::InvalidArgumentError(
        "--max-streams and the numbers of threads must be at least 1");
  }
  return absl::OkStatus();
}

// Those of mutual TLS, which read the files again when they change.
std::shared_ptr<grpc::ServerCredentials> TlsCredentialsOf(const TlsFiles& files) {
  grpc::experimental::TlsServerCredentialsOptions options(
      std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(
          files.key, files.certificate, files.ca, files.reload_seconds));
  options.watch_root_certs();
  options.watch_identity_key_cert_pairs();
  options.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  return grpc::experimental::TlsServerCredentials(options);
}

// As many as a store in a cluster answers at the same time without becoming slower by that.
constexpr size_t kReadWorkers = 32;

// For faults on pages that are on other machines: the loop must not wait for those.
std::unique_ptr<WorkerPool> ReadWorkers(VolumeCatalog& catalog, size_t max_queued) {
  if (!catalog.store().shared()) return nullptr;
  return std::make_unique<WorkerPool>("read-worker",
                                      WorkerPool::Options{.threads = kReadWorkers,
                                                          .max_queued = max_queued,
                                                          .max_queued_of_client = max_queued,
                                                          .urgency = Urgency::kMixed});
}

class GrpcServer final : public Server {
 public:
  GrpcServer(const ServerOptions& options, std::unique_ptr<VolumeCatalog> catalog)
      : options_(options),
        catalog_(std::move(catalog)),
        access_(catalog_.get(), &counters_,
                {.enforced = options.tls.any(),
                 .admins = {options.admins.begin(), options.admins.end()},
                 .limits = options.client}),
        window_(options.max_pages_in_flight),
        // Every task holds at least one page of the window, so this is never reached.
        data_workers_("page-worker", {.threads = options.data_threads,
                                      .max_queued = options.max_pages_in_flight,
                                      .max_queued_of_client = options.max_pages_in_flight}),
        control_workers_("control-worker",
                         {.threads = options.control_threads,
                          .max_queued = kMaxQueuedControlCalls,
                          .max_queued_of_client = kMaxQueuedControlCallsOfClient}),
        read_workers_(ReadWorkers(*catalog_, options.max_pages_in_flight)),
        page_service_(
            {&access_, &counters_, &control_workers_,
             PageStream::Environment{&loop_, &window_, &data_workers_, read_workers_.get(), &calls_,
                                     options.max_pages_in_flight / kStreamsShare},
             options.max_pages_per_request}),
        admin_service_({&access_, &counters_, &window_, &control_workers_, &calls_, options.store,
                        absl::Now()}) {}

  ~GrpcServer() override { Shutdown(absl::ZeroDuration()).IgnoreError(); }

  absl::Status Listen() {
    for (const std::string& address : options_.listen) {
      if (absl::Status status = PrepareListenAddress(address); !status.ok()) return status;
    }
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    grpc::ServerBuilder builder;
    SetChannelArguments(&builder);
    const std::shared_ptr<grpc::ServerCredentials> plaintext = grpc::InsecureServerCredentials();
    std::shared_ptr<grpc::ServerCredentials> for_tcp = plaintext;
    if (options_.tls.any()) {
      for_tcp = TlsCredentialsOf(options_.tls);
      tls_files_.emplace(options_.tls);
      handshakes_.emplace([this](absl::string_view why) { access_.AuditFailedHandshake(why); });
    }
    std::vector<int> ports(options_.listen.size(), 0);
    for (size_t i = 0; i < ports.size(); ++i) {
      const std::string& address = options_.listen[i];
      builder.AddListeningPort(address, IsUnixAddress(address) ? plaintext : for_tcp, &ports[i]);
    }
    builder.RegisterService(&page_service_);
    builder.RegisterService(&admin_service_);
    builder.RegisterService(&health_service_);
    loop_.Adopt(builder.AddCompletionQueue());
    server_ = builder.BuildAndStart();
    for (size_t i = 0; i < ports.size(); ++i) {
      if (server_ != nullptr && ports[i] != 0) {
        addresses_.push_back(WithPort(options_.listen[i], ports[i]));
        continue;
      }
      // Addresses that gRPC did bind are in the way of none: with no server they are free again.
      if (server_ == nullptr && ports[i] != 0) continue;
      server_.reset();
      return ExplainListenFailure(options_.listen[i]);
    }
    if (server_ == nullptr) return absl::InternalError("gRPC could not start the server");
    page_service_.Serve();
    admin_service_.Serve(&loop_);
    health_service_.Serve(&loop_);
    loop_.Start();
    return ServePage();
  }

  const std::vector<std::string>& addresses() const override { return addresses_; }
  const HttpServer* page() const override { return page_.get(); }

  absl::Status Shutdown(absl::Duration timeout) override {
    if (server_ == nullptr || shut_down_.exchange(true)) return absl::OkStatus();
    const auto now = std::chrono::steady_clock::now();
    const auto deadline = now + absl::ToChronoNanoseconds(std::min(timeout, absl::Hours(24)));
    health_service_.Set(HealthService::State::kNotServing);
    calls_.Drain();
    // Only now the listeners are closed: while calls are draining, health can be asked.
    const bool drained = calls_.WaitUntilEmpty(deadline);
    server_->Shutdown(std::chrono::system_clock::now() +
                      (drained ? kForeignCallsGrace : std::chrono::milliseconds(0)));
    loop_.Stop();
    return catalog_->store().Sync();
  }

 private:
  absl::Status ServePage() {
    if (options_.metrics.address.empty()) return absl::OkStatus();
    metrics_ = std::make_unique<ServerMetrics>(catalog_.get(), &counters_, &window_,
                                               tls_files_ ? &*tls_files_ : nullptr,
                                               options_.metrics.series_limit);
    absl::StatusOr<std::unique_ptr<HttpServer>> server = HttpServer::Start(
        options_.metrics, ServerPageRoutes({catalog_.get(), &counters_, &window_, metrics_.get(),
                                            options_.store, addresses_}));
    if (server.ok()) page_ = *std::move(server);
    return server.status();
  }

  void SetChannelArguments(grpc::ServerBuilder* builder) const {
    builder->SetMaxReceiveMessageSize(static_cast<int>(options_.max_message_bytes));
    builder->SetMaxSendMessageSize(static_cast<int>(options_.max_message_bytes));
    builder->AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, options_.max_streams);
    // A second server on the same port is an error and not a silent partner.
    builder->AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
    builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
    builder->AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                                kMinPingIntervalMs);
    builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveTimeMs);
    builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  }

  const ServerOptions options_;
  const std::unique_ptr<VolumeCatalog> catalog_;
  std::vector<std::string> addresses_;  // constant after Listen()
  std::atomic<bool> shut_down_{false};

  ServerCounters counters_;
  const AccessControl access_;
  std::optional<HandshakeListener> handshakes_;  // with TLS
  std::optional<TlsFilesWatch> tls_files_;       // as well
  CallLoop loop_;
  CallSet calls_;
  PageWindow window_;
  WorkerPool data_workers_;
  WorkerPool control_workers_;
  const std::unique_ptr<WorkerPool> read_workers_;  // null for a store of this machine
  PageService page_service_;
  AdminService admin_service_;
  HealthService health_service_;
  // Last: it must be gone before what its calls use.
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<ServerMetrics> metrics_;
  std::unique_ptr<HttpServer> page_;  // null: none is served, nor metrics
};

}  // namespace

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const ServerOptions& options,
                                                      std::unique_ptr<VolumeCatalog> catalog) {
  if (absl::Status status = CheckOptions(options); !status.ok()) return status;
  auto server = std::make_unique<GrpcServer>(options, std::move(catalog));
  if (absl::Status status = server->Listen(); !status.ok()) return status;
  return server;
}

}  // namespace faultline
