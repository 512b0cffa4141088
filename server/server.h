// SPDX-License-Identifier: Apache-2.0
//
// Server: a page server in this process. Start here to read server/.
//
//   main.cc        flags -> ServerOptions, signals -> Shutdown()
//   server         owns all of what follows and the grpc::Server in front of it
//   call_loop      the thread that serves all calls; what may block goes to the workers: also a
//                  fault on a page that the store would have to ask other machines for
//   page_service   the data plane;    its streams are page_stream
//   admin_service  the control plane; its long calls are import_call and export_call
//   health_service says whether the server serves
//   access_control says what each client may do, and writes down what it did
//   client_account says what each client uses, and may; what they wait for they get in turn, see
//                  fair_queue
//   page_window    bounds the pages in memory, worker_pool holds the threads that may block,
//                  call_set knows which calls are under way
//   server_metrics what all of them count, for Prometheus; server_page for people
#ifndef FAULTLINE_SERVER_SERVER_H_
#define FAULTLINE_SERVER_SERVER_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "proto/http_server.h"
#include "proto/tls_files.h"
#include "server/client_account.h"
#include "storage/volume_catalog.h"

namespace faultline {

struct ServerOptions {
  // host:port or unix:path; port 0 takes a free one.
  std::vector<std::string> listen = {"127.0.0.1:7400"};
  // Where they are given, every host:port speaks mutual TLS and nothing else, clients are known by
  // their certificates, and may do what access_control.h says. Unix sockets never speak TLS.
  TlsFiles tls = {};
  // Of clients that may do everything. Without `tls` everybody may.
  std::vector<std::string> admins = {};
  // Without `tls`, only loopback and Unix sockets are listened on, unless this says otherwise.
  bool allow_plaintext = false;
  // What the status names as the store; the store itself comes with the catalog.
  std::string store = "rocksdb:/var/lib/faultline";
  // The largest message that is taken or sent.
  uint64_t max_message_bytes = uint64_t{16} << 20;
  // Of one connection, at the same time.
  int max_streams = 1024;
  // The pages that one Fetch or Write may name.
  uint64_t max_pages_per_request = 1024;
  // The pages that all requests together may hold in memory; requests beyond wait.
  uint64_t max_pages_in_flight = 32768;
  // What each client may have of all that.
  ClientLimits client = {};
  // Threads for writes and large fetches. As many writes can share one sync of the log.
  size_t data_threads = 8;
  // Threads for the control plane.
  size_t control_threads = 4;
  MetricsOptions metrics = {};
};

// Thread-safe.
class Server {
 public:
  // Serves `catalog` at every address of `options`, which are all bound on OK. INVALID_ARGUMENT for
  // options that do not fit together, ALREADY_EXISTS where an address is in use, and others, naming
  // the address, where it cannot be listened on.
  static absl::StatusOr<std::unique_ptr<Server>> Start(const ServerOptions& options,
                                                       std::unique_ptr<VolumeCatalog> catalog);
  // Shuts down at once where Shutdown() was not called.
  virtual ~Server() = default;

  // The bound addresses, in the order of ServerOptions::listen, with their true ports.
  virtual const std::vector<std::string>& addresses() const = 0;
  // The page to look at, and metrics; null where ServerOptions say that there is none.
  virtual const HttpServer* page() const = 0;

  // Drains: health says NOT_SERVING, no new calls are taken, running requests are answered, streams
  // end. What still runs after `timeout` is cancelled. Then everything written is made durable;
  // returns the status of that. Only the first call does anything, later ones return OK at once.
  virtual absl::Status Shutdown(absl::Duration timeout) = 0;
};

}  // namespace faultline

#endif  // FAULTLINE_SERVER_SERVER_H_
