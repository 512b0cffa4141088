// SPDX-License-Identifier: Apache-2.0
//
// The page server program: flags, start, drain on a signal.
#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>
#include <grpc/grpc.h>
#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "proto/daemon.h"
#include "proto/log.h"
#include "proto/service_manager.h"
#include "proto/urgency.h"
#include "server/handshake_log.h"
#include "server/server.h"

namespace faultline {
namespace {

constexpr int kExitFailed = 1;
constexpr int kExitAtSecondSignal = 3;
// Arenas of malloc, for each processor. Each keeps what its threads have needed at some moment; of
// the eight that there are by default, two are as good for threads that run at the same time.
constexpr int kMallocArenas = 2;

struct Flags {
  ServerOptions server;
  PageStoreOptions store;
  absl::Duration drain_timeout = absl::Seconds(10);
  LogLevel log_level = LogLevel::kInfo;
};

void AddSecurityFlags(DaemonFlags& add, ServerOptions* server) {
  add.Add("--tls-cert", &server->tls.certificate, "FILE",
          "Certificate of this server, PEM, with its chain. With it every host:port speaks mutual "
          "TLS, and clients are known by the common names of their certificates. The files are "
          "looked at every 5 s, so they may be replaced");
  add.Add("--tls-key", &server->tls.key, "FILE", "Private key of --tls-cert, PEM");
  add.Add("--tls-client-ca", &server->tls.ca, "FILE",
          "Certificates of those whose clients may connect, PEM");
  add.Add("--admin", &server->admins, "IDENTITY",
          "Client that may do everything; may be given several times. @local: whoever connects "
          "through a Unix socket");
  add.AddSwitch("--allow-plaintext", &server->allow_plaintext,
                "Listen without TLS where other hosts can connect, too: everybody on that network "
                "may read and change every volume");
}

void AddClientFlags(DaemonFlags& add, ClientLimits* client) {
  add.Add("--client-streams", &client->max_streams, "N",
          "Streams of pages of one client, over all of its connections; a client is a name or, "
          "where there are none, a host");
  add.Add("--client-pages-in-flight", &client->max_pages_in_flight, "N",
          "Pages (4KiB) that the requests of one client hold in memory; requests beyond wait");
  add.AddBytes("--client-volume-size", &client->max_volume_bytes,
               "Size of the largest volume that a client may make that is no administrator");
  add.AddBytes("--client-quota", &client->quota_bytes,
               "What all volumes that one client owns may take in the store, about; no more is "
               "written to them then. Not of administrators");
}

void AddFlags(CLI::App& app, Flags* flags) {
  DaemonFlags add(&app, "FAULTLINE_SERVER_");
  ServerOptions& server = flags->server;
  add.Add("--listen", &server.listen, "ADDRESS",
          "Address to listen on: host:port (port 0: any free one) or unix:path; may be given "
          "several times");
  add.Add("--store", &server.store, "STORE",
          "Where the pages are: rocksdb:DIR, memory: (lost at exit), file:PATH (a raw image, "
          "served read-only) or rados:POOL[/NAMESPACE] (a Ceph cluster; any number of servers may "
          "have one namespace)");
  add.AddBytes("--store-memory", &flags->store.memory_bytes,
               "Memory of the store for its cache and for writes under way, such as 1GiB");
  add.AddDuration(
      "--sync-interval", &flags->store.sync_interval,
      "How often writes to volumes of interval durability are made durable, such as 500ms");
  add.Add("--rados-conf", &flags->store.rados_conf, "FILE",
          "Configuration of the cluster of rados:");
  add.Add("--rados-user", &flags->store.rados_user, "NAME",
          "Who opens it: client.NAME, whose key is in the keyring that the configuration names");
  AddSecurityFlags(add, &server);
  add.AddBytes("--max-message-bytes", &server.max_message_bytes, "Largest message taken or sent");
  add.Add("--max-streams", &server.max_streams, "N",
          "Streams and calls of one connection at the same time");
  add.Add("--max-pages-per-request", &server.max_pages_per_request, "N",
          "Pages (4KiB) of one fetch or write; a larger request is refused");
  add.Add("--max-pages-in-flight", &server.max_pages_in_flight, "N",
          "Pages (4KiB) that all requests together hold in memory; requests beyond wait");
  AddClientFlags(add, &server.client);
  add.Add("--data-threads", &server.data_threads, "N", "Threads for writes and large fetches");
  add.Add("--control-threads", &server.control_threads, "N",
          "Threads for volume commands, imports and exports");
  add.AddDuration(
      "--drain-timeout", &flags->drain_timeout,
      "How long running requests may take after SIGTERM or SIGINT before they are cancelled");
  add.AddMetrics(&server.metrics, "volumes");
  add.AddLogLevel(&flags->log_level);
  add.AddConfigFile("store = \"memory:\"");
  app.set_version_flag("--version", "faultline-server " FAULTLINE_VERSION);
}

absl::StatusOr<std::unique_ptr<Server>> StartServer(const Flags& flags) {
  absl::StatusOr<std::unique_ptr<PageStore>> store = OpenPageStore(flags.server.store, flags.store);
  if (!store.ok()) return store.status();
  absl::StatusOr<std::unique_ptr<VolumeCatalog>> catalog = VolumeCatalog::Open(*std::move(store));
  if (!catalog.ok()) return catalog.status();
  return Server::Start(flags.server, *std::move(catalog));
}

int Run(const Flags& flags) {
  // Before anything that starts a thread.
  SetUrgency(Urgency::kMixed);  // and that of the threads of gRPC
  TuneLibraries();
  const sigset_t signals = BlockSignals();
  InitLog("faultline-server", flags.log_level);
  TakeLogOfGrpc();
  // Held to the end of the process: when the last user goes, gRPC 1.51 joins its backup poller,
  // which may sit in epoll_wait() for 10 s after a connection has been slow to take what was sent.
  grpc_init();
  absl::StatusOr<std::unique_ptr<Server>> server = StartServer(flags);
  if (!server.ok()) {
    LogError(absl::StrCat("cannot start: ", server.status().message()));
    return kExitFailed;
  }
  LogInfo(absl::StrCat("listening on ", absl::StrJoin((*server)->addresses(), ", "), "; store ",
                       flags.server.store, "; version " FAULTLINE_VERSION));
  if ((*server)->page() != nullptr) LogPage(*(*server)->page());
  NotifyServiceManager("READY=1");
  const char* const first = WaitForSignal(signals);
  NotifyServiceManager("STOPPING=1");
  LogInfo(absl::StrCat("got ", first, "; draining for at most ",
                       absl::FormatDuration(flags.drain_timeout),
                       ", a second signal ends at once"));
  std::thread([signals] {
    LogWarning(absl::StrCat("got ", WaitForSignal(signals), " while draining; exiting"));
    _exit(kExitAtSecondSignal);
  }).detach();
  if (absl::Status status = (*server)->Shutdown(flags.drain_timeout); !status.ok()) {
    LogError(absl::StrCat("the last writes may not be durable: ", status.message()));
    return kExitFailed;
  }
  server->reset();
  LogInfo("drained; everything is durable");
  return 0;
}

int Main(int argc, char** argv) {
  const auto processors = static_cast<int>(std::max(std::thread::hardware_concurrency(), 1u));
  mallopt(M_ARENA_MAX, kMallocArenas * processors);
  Flags flags;
  CLI::App app(
      "The Faultline page server: keeps volumes of pages and serves them over gRPC.\n"
      "Flags may also be given in the environment, as FAULTLINE_SERVER_ and the flag's "
      "name.");
  AddFlags(app, &flags);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ConfigError& error) {
    std::cerr << "the file given by --config has a key that is no flag: " << error.what()
              << "\nRun with --help for the flags.\n";
    return error.get_exit_code();
  } catch (const CLI::ParseError& error) {
    return app.exit(error);
  }
  return Run(flags);
}

}  // namespace
}  // namespace faultline

int main(int argc, char** argv) { return faultline::Main(argc, argv); }
