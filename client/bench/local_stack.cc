// SPDX-License-Identifier: Apache-2.0
#include "client/bench/local_stack.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>
#include <absl/time/clock.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>
#include <system_error>
#include <thread>
#include <utility>

#include "proto/certificate_authority.h"

namespace faultline {
namespace {

constexpr auto kStartPatience = std::chrono::seconds(20);

std::string ReadFile(const std::string& path) {
  std::ostringstream content;
  content << std::ifstream(path).rdbuf();
  return content.str();
}

bool Accepts(const std::string& socket_path) {
  const UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  socket_path.copy(address.sun_path, sizeof address.sun_path - 1);
  return connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
}

absl::StatusOr<ChildProcess> StartWithLog(const std::vector<std::string>& argv,
                                          const std::string& log) {
  const UniqueFd file(open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
  if (!file) return absl::ErrnoToStatus(errno, log);
  return ChildProcess::Start(argv, {.in = -1, .out = file.get(), .err = file.get()}, {},
                             ChildProcess::TlsVariables::kDropped);
}

// Polls `ready` while the program runs.
absl::Status WaitUntil(ChildProcess& child, const std::string& what, const std::string& log,
                       const std::function<bool()>& ready) {
  const auto patience_ends = std::chrono::steady_clock::now() + kStartPatience;
  while (!ready()) {
    if (!child.running() || std::chrono::steady_clock::now() > patience_ends) {
      return absl::UnavailableError(absl::StrCat(what, " did not come up:\n", ReadFile(log)));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return absl::OkStatus();
}

std::string ServerName(size_t number) {
  return number == 0 ? "server" : absl::StrCat("server", number + 1);
}

// The address in the server's line "... listening on ADDRESS[, ...]; ...", if it is there yet,
// behind what the log had before.
std::string ListeningAddress(const std::string& log, uintmax_t log_before) {
  constexpr char kBefore[] = "listening on ";
  const std::string text = ReadFile(log);
  const size_t at = text.find(kBefore, log_before);
  if (at == std::string::npos) return "";
  const size_t from = at + strlen(kBefore);
  const size_t end = text.find_first_of(",;\n", from);
  return end == std::string::npos ? "" : text.substr(from, end - from);
}

}  // namespace

absl::StatusOr<TemporaryDirectory> TemporaryDirectory::Create(const std::string& parent) {
  std::string path = absl::StrCat(parent.empty() ? "/var/tmp" : parent, "/faultline.XXXXXX");
  if (mkdtemp(path.data()) == nullptr) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot make a directory ", path));
  }
  return TemporaryDirectory(std::move(path));
}

TemporaryDirectory::TemporaryDirectory(TemporaryDirectory&& other) noexcept
    : path_(std::exchange(other.path_, "")) {}

TemporaryDirectory& TemporaryDirectory::operator=(TemporaryDirectory&& other) noexcept {
  std::swap(path_, other.path_);
  return *this;
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;  // what cannot be removed now is left to the system's own cleaning
  if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
}

const char* TransportName(Transport transport) {
  switch (transport) {
    case Transport::kTcp:
      return "TCP loopback";
    case Transport::kUnix:
      return "Unix socket";
    case Transport::kTls:
      break;
  }
  return "mutual TLS over TCP loopback";
}

std::string SiblingProgram(const std::string& name) {
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  return (self.parent_path() / name).string();
}

absl::StatusOr<std::string> SiblingLibrary(const std::string& name) {
  std::error_code error;
  const std::string beside = SiblingProgram(name);
  if (std::filesystem::exists(beside, error)) return beside;
  const std::filesystem::path installed =
      std::filesystem::path(SiblingProgram("../lib/faultline")).lexically_normal() / name;
  if (std::filesystem::exists(installed, error)) return installed.string();
  return absl::NotFoundError(
      absl::StrCat("there is neither ", beside, " nor ", installed.string(), "; install it there"));
}

absl::StatusOr<LocalStack> LocalStack::Start(const std::string& directory, Transport transport,
                                             LocalStackFlags flags) {
  LocalStack stack;
  stack.directory_ = directory;
  stack.flags_ = std::move(flags);
  absl::Status status = transport == Transport::kTls ? stack.MakeCertificates() : absl::OkStatus();
  if (!status.ok()) return status;
  for (size_t i = 0; i < stack.flags_.servers; ++i) {
    const std::string unix_address = absl::StrCat("unix:", directory, "/", ServerName(i));
    auto server =
        stack.StartServer(i, transport == Transport::kUnix ? unix_address : "127.0.0.1:0");
    if (!server.ok()) return server.status();
    stack.servers_.push_back(*std::move(server));
  }
  if (stack.flags_.link.limits()) {
    auto link = bench::LimitedLink::Start(stack.server_address(), stack.flags_.link);
    if (!link.ok()) return link.status();
    stack.link_ = *std::move(link);
  }
  absl::StatusOr<AgentProcess> agent = stack.StartAgent("agent", {});
  if (!agent.ok()) return agent.status();
  stack.agent_ = *std::move(agent);
  return stack;
}

absl::Status LocalStack::MakeCertificates() {
  const auto authority = CertificateAuthority::Create(directory_ + "/ca.pem");
  if (!authority.ok()) return authority.status();
  const absl::Time expires = absl::Now() + absl::Hours(24);
  const auto server = (*authority)->Issue("server", directory_ + "/server", expires);
  if (!server.ok()) return server.status();
  const auto client = (*authority)->Issue("client", directory_ + "/client", expires);
  if (!client.ok()) return client.status();
  const auto other = (*authority)->Issue(kOtherClient, directory_ + "/other", expires);
  if (!other.ok()) return other.status();
  tls_.files = *client;
  other_client_tls_.files = *other;
  server_tls_flags_ = {"--tls-cert=" + server->certificate, "--tls-key=" + server->key,
                       "--tls-client-ca=" + server->ca};
  return absl::OkStatus();
}

std::string LocalStack::server_address() const {
  std::vector<std::string> all;
  for (const ServerProgram& server : servers_) all.push_back(server.address);
  return absl::StrJoin(all, ",");
}

absl::StatusOr<LocalStack::ServerProgram> LocalStack::StartServer(size_t number,
                                                                  const std::string& listen) const {
  const std::string log = absl::StrCat(directory_, "/", ServerName(number), ".log");
  std::error_code none_yet;
  const uintmax_t before = std::filesystem::file_size(log, none_yet);
  const std::string store =
      flags_.store.empty() ? absl::StrCat("rocksdb:", directory_, "/store") : flags_.store;
  std::vector<std::string> argv = {SiblingProgram("faultline-server"), "--listen=" + listen,
                                   "--store=" + store};
  argv.insert(argv.end(), server_tls_flags_.begin(), server_tls_flags_.end());
  argv.insert(argv.end(), flags_.server.begin(), flags_.server.end());
  absl::StatusOr<ChildProcess> process = StartWithLog(argv, log);
  if (!process.ok()) return process.status();
  ServerProgram server{.process = *std::move(process), .address = {}};
  absl::Status status = WaitUntil(server.process, "the page server", log, [&] {
    return !(server.address = ListeningAddress(log, none_yet ? 0 : before)).empty();
  });
  if (!status.ok()) return status;
  return server;
}

absl::StatusOr<AgentProcess> LocalStack::StartAgent(const std::string& name,
                                                    const std::vector<std::string>& flags) const {
  const std::string log = absl::StrCat(directory_, "/", name, ".log");
  AgentProcess agent;
  agent.socket = absl::StrCat(directory_, "/", name, ".sock");
  std::vector<std::string> argv = {SiblingProgram("faultline-agent"),
                                   "--server=" + address_for_agents(), "--socket=" + agent.socket};
  const std::vector<std::string> tls = FlagsOf(tls_);
  argv.insert(argv.end(), tls.begin(), tls.end());
  argv.insert(argv.end(), flags_.agent.begin(), flags_.agent.end());
  argv.insert(argv.end(), flags.begin(), flags.end());
  absl::StatusOr<ChildProcess> process = StartWithLog(argv, log);
  if (!process.ok()) return process.status();
  agent.process = *std::move(process);
  absl::Status status =
      WaitUntil(agent.process, "the agent", log, [&] { return Accepts(agent.socket); });
  if (!status.ok()) return status;
  return agent;
}

absl::Status LocalStack::KillAndRestartServer() {
  const size_t number = killed_next_;
  killed_next_ = (number + 1) % servers_.size();
  kill(servers_[number].process.pid(), SIGKILL);
  servers_[number].process.Wait();
  absl::StatusOr<ServerProgram> server = StartServer(number, servers_[number].address);
  if (!server.ok()) return server.status();
  servers_[number] = *std::move(server);
  return absl::OkStatus();
}

absl::Status LocalStack::KillAndRestartAgent() {
  kill(agent_pid(), SIGKILL);
  agent_.process.Wait();
  absl::StatusOr<AgentProcess> agent = StartAgent("agent", {});
  if (!agent.ok()) return agent.status();
  agent_ = *std::move(agent);
  return absl::OkStatus();
}

absl::StatusOr<std::string> LocalStack::Faultline(const std::vector<std::string>& arguments) const {
  std::vector<std::string> argv = {SiblingProgram("faultline"), "--server=" + server_address()};
  const std::vector<std::string> tls = FlagsOf(tls_);
  argv.insert(argv.end(), tls.begin(), tls.end());
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  return RunProgram(argv);
}

}  // namespace faultline
