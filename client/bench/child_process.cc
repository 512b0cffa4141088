// SPDX-License-Identifier: Apache-2.0
#include "client/bench/child_process.h"

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/string_view.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <thread>
#include <utility>

namespace faultline {
namespace {

constexpr auto kTerminatePatience = std::chrono::seconds(5);

// Between fork and exec only what POSIX allows there.
[[noreturn]] void Exec(char* const* argv, char* const* environment, ChildProcess::Streams streams) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  const int in = streams.in >= 0 ? streams.in : open("/dev/null", O_RDONLY);
  dup2(in, STDIN_FILENO);
  if (streams.out >= 0) dup2(streams.out, STDOUT_FILENO);
  if (streams.err >= 0) dup2(streams.err, STDERR_FILENO);
  execvpe(argv[0], argv, environment);
  _exit(127);
}

// With a null at the end.
std::vector<char*> Pointers(const std::vector<std::string>& words) {
  std::vector<char*> pointers;
  for (const std::string& word : words) pointers.push_back(const_cast<char*>(word.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

std::string ReadAll(int fd) {
  std::string all;
  std::array<char, 4096> buffer;
  lseek(fd, 0, SEEK_SET);
  for (ssize_t n; (n = read(fd, buffer.data(), buffer.size())) > 0;) {
    all.append(buffer.data(), static_cast<size_t>(n));
  }
  return all;
}

}  // namespace

absl::StatusOr<ChildProcess> ChildProcess::Start(const std::vector<std::string>& argv,
                                                 Streams streams,
                                                 const std::vector<std::string>& environment,
                                                 TlsVariables tls) {
  const std::vector<char*> raw = Pointers(argv);
  std::vector<char*> variables = Pointers(environment);
  variables.pop_back();
  for (char** inherited = environ; *inherited != nullptr; ++inherited) {
    const absl::string_view name(*inherited, strcspn(*inherited, "="));
    const bool replaced = std::any_of(
        environment.begin(), environment.end(),
        [name](const std::string& one) { return absl::StartsWith(one, absl::StrCat(name, "=")); });
    const bool dropped = tls == TlsVariables::kDropped && absl::StartsWith(name, "FAULTLINE_") &&
                         absl::StrContains(name, "TLS_");
    if (!replaced && !dropped) variables.push_back(*inherited);
  }
  variables.push_back(nullptr);
  if (argv[0].find('/') != std::string::npos && access(argv[0].c_str(), X_OK) != 0) {
    return absl::NotFoundError(absl::StrCat("cannot run ", argv[0], ": ", strerror(errno)));
  }
  const pid_t pid = fork();
  if (pid < 0) return absl::ErrnoToStatus(errno, absl::StrCat("fork for ", argv[0]));
  if (pid == 0) Exec(raw.data(), variables.data(), streams);
  ChildProcess child;
  child.pid_ = pid;
  return child;
}

ChildProcess::ChildProcess(ChildProcess&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)), status_(other.status_) {}

ChildProcess& ChildProcess::operator=(ChildProcess&& other) noexcept {
  Terminate();
  pid_ = std::exchange(other.pid_, -1);
  status_ = other.status_;
  return *this;
}

ChildProcess::~ChildProcess() { Terminate(); }

bool ChildProcess::running() {
  if (pid_ < 0) return false;
  int status;
  if (waitpid(pid_, &status, WNOHANG) != pid_) return true;
  pid_ = -1;
  status_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return false;
}

int ChildProcess::Wait() {
  if (pid_ < 0) return status_;
  int status;
  while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  return status_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int ChildProcess::Terminate() {
  if (!running()) return status_;
  kill(pid_, SIGTERM);
  const auto patience_ends = std::chrono::steady_clock::now() + kTerminatePatience;
  while (running()) {
    if (std::chrono::steady_clock::now() > patience_ends) kill(pid_, SIGKILL);
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return status_;
}

absl::StatusOr<std::string> RunProgram(const std::vector<std::string>& argv) {
  const UniqueFd out(memfd_create("stdout", MFD_CLOEXEC));
  const UniqueFd err(memfd_create("stderr", MFD_CLOEXEC));
  absl::StatusOr<ChildProcess> child =
      ChildProcess::Start(argv, {.in = -1, .out = out.get(), .err = err.get()}, {},
                          ChildProcess::TlsVariables::kDropped);
  if (!child.ok()) return child.status();
  if (const int status = child->Wait(); status != 0) {
    return absl::InternalError(
        absl::StrCat(argv[0], " ended with status ", status, ": ", ReadAll(err.get())));
  }
  return ReadAll(out.get());
}

absl::StatusOr<HeldProgram> HeldProgram::Start(const std::vector<std::string>& argv) {
  int in[2], out[2];
  if (pipe2(in, O_CLOEXEC) != 0) return absl::ErrnoToStatus(errno, "pipe");
  const UniqueFd in_read(in[0]);
  HeldProgram program;
  program.to_ = UniqueFd(in[1]);
  if (pipe2(out, O_CLOEXEC) != 0) return absl::ErrnoToStatus(errno, "pipe");
  program.from_ = UniqueFd(out[0]);
  const UniqueFd out_write(out[1]);
  absl::StatusOr<ChildProcess> child =
      ChildProcess::Start(argv, {.in = in_read.get(), .out = out_write.get(), .err = -1});
  if (!child.ok()) return child.status();
  program.child_ = *std::move(child);
  return program;
}

std::string HeldProgram::ReadLine() {
  std::string line;
  for (char c; read(from_.get(), &c, 1) == 1 && c != '\n';) line += c;
  return line;
}

int HeldProgram::Release() {
  to_.reset();
  return child_.Wait();
}

}  // namespace faultline
