// SPDX-License-Identifier: Apache-2.0
#include "client/vm/sibling_daemon.h"

#include <absl/functional/function_ref.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/string_view.h>
#include <absl/time/clock.h>
#include <absl/time/time.h>
#include <fcntl.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "client/bench/local_stack.h"
#include "client/cli/agent_query.h"

namespace faultline {
namespace {

constexpr absl::Duration kStartTimeout = absl::Minutes(1);
constexpr absl::Duration kLookInterval = absl::Milliseconds(5);
constexpr absl::Duration kAnswerTimeout = absl::Seconds(10);
constexpr size_t kMaxLogBytes = 4096;

// In a server's line "... listening on ADDRESS[, ...]; ..."; empty while it is not there.
std::string ListeningAddress(absl::string_view log) {
  constexpr absl::string_view kBefore = "listening on ";
  const size_t at = log.find(kBefore);
  if (at == log.npos) return "";
  log.remove_prefix(at + kBefore.size());
  const size_t end = log.find_first_of(",;\n");
  return end == log.npos ? "" : std::string(log.substr(0, end));
}

}  // namespace

absl::StatusOr<SiblingDaemon> SiblingDaemon::Start(const std::string& program,
                                                   const std::vector<std::string>& flags) {
  SiblingDaemon daemon;
  daemon.log_.reset(memfd_create("log", MFD_CLOEXEC));
  if (!daemon.log_) return absl::ErrnoToStatus(errno, "cannot make a memfd");
  // A session of its own: ^C on a terminal is for this program, which may have reasons to go on.
  std::vector<std::string> argv = {"setsid", SiblingProgram(program)};
  argv.insert(argv.end(), flags.begin(), flags.end());
  absl::StatusOr<ChildProcess> process =
      ChildProcess::Start(argv, {.in = -1, .out = daemon.log_.get(), .err = daemon.log_.get()}, {},
                          ChildProcess::TlsVariables::kDropped);
  if (!process.ok()) return process.status();
  daemon.process_ = *std::move(process);
  return daemon;
}

absl::StatusOr<SiblingDaemon> SiblingDaemon::StartServer(const std::vector<std::string>& flags) {
  absl::StatusOr<SiblingDaemon> server = Start("faultline-server", flags);
  if (!server.ok()) return server;
  const absl::Time deadline = absl::Now() + kStartTimeout;
  while ((server->address_ = ListeningAddress(server->Log())).empty()) {
    if (!server->process_.running() || absl::Now() > deadline) {
      return absl::UnavailableError(
          absl::StrCat("the page server does not come up:\n", server->Log()));
    }
    absl::SleepFor(kLookInterval);
  }
  return server;
}

absl::StatusOr<SiblingDaemon> SiblingDaemon::StartAgent(const std::vector<std::string>& flags,
                                                        const std::string& socket) {
  absl::StatusOr<SiblingDaemon> agent = Start("faultline-agent", flags);
  if (!agent.ok()) return agent;
  const absl::Time deadline = absl::Now() + kStartTimeout;
  while (!QueryAgent(socket, R"({"query":"attachments"})", kAnswerTimeout).ok()) {
    if (!agent->process_.running() || absl::Now() > deadline) {
      return absl::UnavailableError(absl::StrCat("the agent does not come up:\n", agent->Log()));
    }
    absl::SleepFor(kLookInterval);
  }
  agent->flags_ = flags;
  agent->socket_ = socket;
  return agent;
}

absl::Status SiblingDaemon::RestartAgent() {
  absl::StatusOr<SiblingDaemon> agent = StartAgent(flags_, socket_);
  if (!agent.ok()) return agent.status();
  *this = *std::move(agent);
  return absl::OkStatus();
}

std::string SiblingDaemon::Log() const {
  std::string log(kMaxLogBytes, '\0');
  const off_t size = lseek(log_.get(), 0, SEEK_END);
  const off_t from = std::max<off_t>(0, size - static_cast<off_t>(kMaxLogBytes));
  const ssize_t n = pread(log_.get(), log.data(), log.size(), from);
  log.resize(n > 0 ? static_cast<size_t>(n) : 0);
  return log;
}

}  // namespace faultline
