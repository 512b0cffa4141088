// SPDX-License-Identifier: Apache-2.0
//
// The page server program: flags, start, drain on a signal.
#include <absl/strings/ascii.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>
#include <absl/strings/str_replace.h>
#include <grpc/grpc.h>
#include <grpc/support/log.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include <iostream>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include <CLI/CLI.hpp>

#include "proto/log.h"
#include "proto/units.h"
#include "server/server.h"

namespace faultline {
namespace {

constexpr int kExitFailed = 1;
constexpr int kExitAtSecondSignal = 3;

struct Flags {
  ServerOptions server;
  PageStoreOptions store;
  absl::Duration drain_timeout = absl::Seconds(10);
  LogLevel log_level = LogLevel::kInfo;
};

// Runs `parse` on a flag's text; its error becomes that of the flag.
template <typename T>
auto Parsing(std::string name, absl::StatusOr<T> (*parse)(absl::string_view), T* target) {
  return [name = std::move(name), parse, target](const std::string& text) {
    absl::StatusOr<T> parsed = parse(text);
    if (!parsed.ok()) throw CLI::ValidationError(name, std::string(parsed.status().message()));
    *target = *std::move(parsed);
  };
}

absl::StatusOr<LogLevel> ParseLevel(absl::string_view text) {
  LogLevel level;
  if (ParseLogLevel(text, &level)) return level;
  return absl::InvalidArgumentError(
      absl::StrCat("\"", text, "\" is no log level; write debug, info, warning or error"));
}

std::string EnvironmentName(const std::string& flag) {
  return absl::StrCat("FAULTLINE_SERVER_",
                      absl::AsciiStrToUpper(absl::StrReplaceAll(flag.substr(2), {{"-", "_"}})));
}

void AddBytes(CLI::App& app, const std::string& name, uint64_t* target, const std::string& help) {
  app.add_option_function<std::string>(name, Parsing(name, &ParseBytes, target), help)
      ->type_name("SIZE")
      ->default_str(FormatBytes(*target))
      ->envname(EnvironmentName(name));
}

void AddDuration(CLI::App& app, const std::string& name, absl::Duration* target,
                 const std::string& help) {
  app.add_option_function<std::string>(name, Parsing(name, &ParseDuration, target), help)
      ->type_name("DURATION")
      ->default_str(absl::FormatDuration(*target))
      ->envname(EnvironmentName(name));
}

template <typename N>
void AddNumber(CLI::App& app, const std::string& name, N* target, const std::string& help) {
  app.add_option(name, *target, help)
      ->type_name("N")
      ->capture_default_str()
      ->envname(EnvironmentName(name));
}

void AddFlags(CLI::App& app, Flags* flags) {
  ServerOptions& server = flags->server;
  app.add_option("--listen", server.listen,
                 "Address to listen on: host:port (port 0: any free one) or unix:path; may be "
                 "given several times")
      ->type_name("ADDRESS")
      ->capture_default_str()
      ->envname(EnvironmentName("--listen"));
  app.add_option("--store", server.store,
                 "Where the pages are: rocksdb:DIR, memory: (lost at exit) or file:PATH (a raw "
                 "image, served read-only)")
      ->type_name("STORE")
      ->capture_default_str()
      ->envname(EnvironmentName("--store"));
  AddBytes(app, "--store-memory", &flags->store.memory_bytes,
           "Memory of the store for its cache and for writes under way, such as 1GiB");
  AddDuration(app, "--sync-interval", &flags->store.sync_interval,
              "How often writes to volumes of interval durability are made durable, such as 500ms");
  AddBytes(app, "--max-message-bytes", &server.max_message_bytes, "Largest message taken or sent");
  AddNumber(app, "--max-streams", &server.max_streams,
            "Streams and calls of one connection at the same time");
  AddNumber(app, "--max-pages-per-request", &server.max_pages_per_request,
            "Pages (4KiB) of one fetch or write; a larger request is refused");
  AddNumber(app, "--max-pages-in-flight", &server.max_pages_in_flight,
            "Pages (4KiB) that all requests together hold in memory; requests beyond wait");
  AddNumber(app, "--data-threads", &server.data_threads, "Threads for writes and large fetches");
  AddNumber(app, "--control-threads", &server.control_threads,
            "Threads for volume commands, imports and exports");
  AddDuration(
      app, "--drain-timeout", &flags->drain_timeout,
      "How long running requests may take after SIGTERM or SIGINT before they are cancelled");
  app.add_option_function<std::string>("--log-level",
                                       Parsing("--log-level", &ParseLevel, &flags->log_level),
                                       "Least level that is logged: debug, info, warning or error")
      ->type_name("LEVEL")
      ->default_str("info")
      ->envname(EnvironmentName("--log-level"));
  app.set_config("--config", "", "TOML file with the flags' names as keys: store = \"memory:\"")
      ->type_name("FILE")
      ->envname(EnvironmentName("--config"));
  app.allow_config_extras(CLI::config_extras_mode::error);
  app.set_version_flag("--version", "faultline-server " FAULTLINE_VERSION);
}

// Blocks the signals that end the server, in this thread and all that it will start, so that
// WaitForSignal() gets them.
sigset_t BlockSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  // A client that goes away is an error of its write.
  signal(SIGPIPE, SIG_IGN);
  return signals;
}

int WaitForSignal(const sigset_t& signals) {
  int signal_number = 0;
  sigwait(&signals, &signal_number);
  return signal_number;
}

absl::StatusOr<std::unique_ptr<Server>> StartServer(const Flags& flags) {
  absl::StatusOr<std::unique_ptr<PageStore>> store = OpenPageStore(flags.server.store, flags.store);
  if (!store.ok()) return store.status();
  absl::StatusOr<std::unique_ptr<VolumeCatalog>> catalog = VolumeCatalog::Open(*std::move(store));
  if (!catalog.ok()) return catalog.status();
  return Server::Start(flags.server, *std::move(catalog));
}

// gRPC's own messages: what matters of them comes as a status as well.
void LogOfGrpc(gpr_log_func_args* message) { LogDebug(absl::StrCat("gRPC: ", message->message)); }

int Run(const Flags& flags) {
  // Before anything that starts a thread.
  const sigset_t signals = BlockSignals();
  InitLog("faultline-server", flags.log_level);
  gpr_set_log_function(&LogOfGrpc);
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
  const int first = WaitForSignal(signals);
  LogInfo(absl::StrCat("got ", strsignal(first), "; draining for at most ",
                       absl::FormatDuration(flags.drain_timeout),
                       ", a second signal ends at once"));
  std::thread([signals] {
    LogWarning(absl::StrCat("got ", strsignal(WaitForSignal(signals)), " while draining; exiting"));
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
