// SPDX-License-Identifier: Apache-2.0
//
// What the two daemons have in common at their edges: how flags are read, how signals end them, how
// libraries are set up. For main.cc files only; it includes CLI11. Not thread-safe.
#ifndef FAULTLINE_PROTO_DAEMON_H_
#define FAULTLINE_PROTO_DAEMON_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/ascii.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_replace.h>
#include <absl/strings/string_view.h>
#include <absl/time/time.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>

#include <string>
#include <utility>

#include <CLI/CLI.hpp>

#include "proto/http_server.h"
#include "proto/libraries.h"
#include "proto/log.h"
#include "proto/units.h"

namespace faultline {

// Adds flags to a program's command line: each may also stand in its config file and, as PREFIX and
// the flag's name in capitals, in the environment.
class DaemonFlags {
 public:
  // `app` is borrowed.
  DaemonFlags(CLI::App* app, std::string environment_prefix)
      : app_(app), prefix_(std::move(environment_prefix)) {}

  // A flag whose text `parse` reads; its error becomes that of the flag.
  template <typename T>
  CLI::Option* AddParsed(const std::string& name, absl::StatusOr<T> (*parse)(absl::string_view),
                         T* target, const std::string& type, const std::string& default_text,
                         const std::string& help) {
    const auto read = [name, parse, target](const std::string& text) {
      absl::StatusOr<T> parsed = parse(text);
      if (!parsed.ok()) throw CLI::ValidationError(name, std::string(parsed.status().message()));
      *target = *std::move(parsed);
    };
    return Named(app_->add_option_function<std::string>(name, read, help), name, type)
        ->default_str(default_text);
  }

  // A flag that CLI11 can read by itself: text, numbers, lists of them.
  template <typename T>
  CLI::Option* Add(const std::string& name, T* target, const std::string& type,
                   const std::string& help) {
    return Named(app_->add_option(name, *target, help), name, type)->capture_default_str();
  }

  // A flag that is given or not; in a config file and the environment, true or false.
  CLI::Option* AddSwitch(const std::string& name, bool* target, const std::string& help) {
    return Named(app_->add_flag(name, *target, help), name, "");
  }

  CLI::Option* AddBytes(const std::string& name, uint64_t* target, const std::string& help) {
    return AddParsed(name, &ParseBytes, target, "SIZE", FormatBytes(*target), help);
  }
  CLI::Option* AddDuration(const std::string& name, absl::Duration* target,
                           const std::string& help) {
    return AddParsed(name, &ParseDuration, target, "DURATION", absl::FormatDuration(*target), help);
  }
  void AddLogLevel(LogLevel* target) {
    AddParsed("--log-level", &ParseLogLevel, target, "LEVEL", "info",
              "Least level that is logged: debug, info, warning or error");
  }
  // --metrics and what belongs to it; `things` have series of their own.
  void AddMetrics(MetricsOptions* target, const std::string& things) {
    Add("--metrics", &target->address, "ADDRESS",
        "Serve metrics for Prometheus, at /metrics, and a page to look at over HTTP at host:port, "
        "port 0 for any free one");
    AddSwitch("--metrics-beyond-loopback", &target->beyond_loopback,
              "Allow --metrics at an address that other hosts reach: anybody may read them there");
    Add("--metrics-series", &target->series_limit, "N",
        absl::StrCat("Show at most so many ", things,
                     " by themselves; what is beyond is added up as \"other\""));
  }
  // --config, with `example` as a line of such a file.
  void AddConfigFile(const std::string& example) {
    CLI::Option* config = app_->set_config(
        "--config", "", absl::StrCat("TOML file with the flags' names as keys: ", example));
    Named(config, "--config", "FILE");
    app_->allow_config_extras(CLI::config_extras_mode::error);
  }

 private:
  CLI::Option* Named(CLI::Option* option, const std::string& name, const std::string& type) {
    return option->type_name(type)->envname(absl::StrCat(
        prefix_, absl::AsciiStrToUpper(absl::StrReplaceAll(name.substr(2), {{"-", "_"}}))));
  }

  CLI::App* const app_;
  const std::string prefix_;
};

// Blocks the signals that end a daemon, in this thread and all that it will start, so that
// WaitForSignal() gets them. A peer that goes away is an error of the write to it, not a signal.
inline sigset_t BlockSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);
  return signals;
}

// Tells where the page and the metrics are.
inline void LogPage(const HttpServer& page) {
  LogInfo(absl::StrCat("page at ", page.url(), ", metrics at ", page.url(), "metrics"));
}

// Waits for one of them; its name.
inline const char* WaitForSignal(const sigset_t& signals) {
  int signal_number = 0;
  sigwait(&signals, &signal_number);
  return strsignal(signal_number);
}

}  // namespace faultline

#endif  // FAULTLINE_PROTO_DAEMON_H_
