// SPDX-License-Identifier: Apache-2.0
#include "client/bench/local_stack.h"

#include <absl/strings/str_cat.h>
#include <errno.h>
#include <fcntl.h>
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
  return ChildProcess::Start(argv, {.in = -1, .out = file.get(), .err = file.get()});
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

// The address in the server's line "... listening on ADDRESS[, ...]; ...", if it is there yet.
std::string ListeningAddress(const std::string& log) {
  constexpr char kBefore[] = "listening on ";
  const std::string text = ReadFile(log);
  const size_t at = text.find(kBefore);
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

std::string SiblingProgram(const std::string& name) {
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  return (self.parent_path() / name).string();
}

absl::StatusOr<LocalStack> LocalStack::Start(const std::string& directory, Transport transport) {
  LocalStack stack;
  const std::string server_log = directory + "/server.log";
  const std::string agent_log = directory + "/agent.log";
  const std::string listen =
      transport == Transport::kTcp ? "127.0.0.1:0" : absl::StrCat("unix:", directory, "/server");
  absl::StatusOr<ChildProcess> server =
      StartWithLog({SiblingProgram("faultline-server"), "--listen=" + listen,
                    absl::StrCat("--store=rocksdb:", directory, "/store")},
                   server_log);
  if (!server.ok()) return server.status();
  stack.server_ = *std::move(server);
  absl::Status status = WaitUntil(stack.server_, "the page server", server_log, [&] {
    return !(stack.server_address_ = ListeningAddress(server_log)).empty();
  });
  if (!status.ok()) return status;

  stack.agent_socket_ = directory + "/agent.sock";
  absl::StatusOr<ChildProcess> agent =
      StartWithLog({SiblingProgram("faultline-agent"), "--server=" + stack.server_address_,
                    "--socket=" + stack.agent_socket_},
                   agent_log);
  if (!agent.ok()) return agent.status();
  stack.agent_ = *std::move(agent);
  status =
      WaitUntil(stack.agent_, "the agent", agent_log, [&] { return Accepts(stack.agent_socket_); });
  if (!status.ok()) return status;
  return stack;
}

absl::StatusOr<std::string> LocalStack::Faultline(const std::vector<std::string>& arguments) const {
  std::vector<std::string> argv = {SiblingProgram("faultline"), "--server=" + server_address_};
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  return RunProgram(argv);
}

}  // namespace faultline
