// SPDX-License-Identifier: Apache-2.0
#include "client/lib/agent_watcher.h"

#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>

namespace faultline {
namespace {

// Plenty for poll and a small buffer; the thread-local storage of the program lies on it, too.
constexpr size_t kStackBytes = size_t{128} << 10;

[[noreturn]] void KillProcess(const char* last_words) {
  [[maybe_unused]] const ssize_t n = write(STDERR_FILENO, last_words, strlen(last_words));
  // What abort() does, without its lock, and without the program's handler: it would run on this
  // thread, and could touch memory that is never filled.
  struct sigaction action {};
  action.sa_handler = SIG_DFL;
  sigaction(SIGABRT, &action, nullptr);
  sigset_t abort_only;
  sigemptyset(&abort_only);
  sigaddset(&abort_only, SIGABRT);
  pthread_sigmask(SIG_UNBLOCK, &abort_only, nullptr);
  syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGABRT);
  // Where another thread has put a handler back meanwhile.
  kill(getpid(), SIGKILL);
  _exit(128 + SIGKILL);
}

// Whether the connection has ended. Reads what the agent sends: nothing that means anything.
bool HasEnded(int socket) {
  char bytes[64];
  const ssize_t n = recv(socket, bytes, sizeof bytes, MSG_DONTWAIT);
  return n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
}

}  // namespace

AgentWatcher::~AgentWatcher() { Stop(); }

Failure AgentWatcher::Start(int socket, OnAgentLoss on_loss, const std::string& what) {
  socket_ = socket;
  on_loss_ = on_loss;
  snprintf(last_words_, sizeof last_words_,
           "faultline: the agent is gone, and with it the pages of %s that are not filled: killing "
           "process %d\n",
           what.c_str(), static_cast<int>(getpid()));
  stop_.reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!stop_) return SystemFailure("cannot make an eventfd");
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(
      &attributes, std::max(kStackBytes, static_cast<size_t>(sysconf(_SC_THREAD_STACK_MIN))));
  // The thread inherits the mask, so that there is no moment at which it takes a signal.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const int result = pthread_create(
      &thread_, &attributes,
      [](void* self) -> void* {
        static_cast<AgentWatcher*>(self)->Run();
        return nullptr;
      },
      this);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  pthread_attr_destroy(&attributes);
  if (result != 0) {
    errno = result;
    return SystemFailure("cannot start the thread that watches the agent");
  }
  running_ = true;
  pthread_setname_np(thread_, "faultline");
  return Success();
}

void AgentWatcher::Stop() {
  if (!running_) return;
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t n = write(stop_.get(), &one, sizeof one);
  pthread_join(thread_, nullptr);
  running_ = false;
}

void AgentWatcher::Run() {
  while (true) {
    pollfd watched[2] = {{stop_.get(), POLLIN, 0}, {socket_, POLLIN, 0}};
    poll(watched, 2, -1);
    if (watched[0].revents != 0) return;
    if (watched[1].revents == 0 || !HasEnded(socket_)) continue;
    if (on_loss_ == OnAgentLoss::kKill) KillProcess(last_words_);
    return;
  }
}

}  // namespace faultline
