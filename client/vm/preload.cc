// SPDX-License-Identifier: Apache-2.0
//
// libfaultline-vm-preload.so: loaded into a QEMU by PreloadAttacher (preload_protocol.h), it hands
// what serves the guest's RAM to PreloadAttacher, which hands it over to an agent.
//
// The first mapping of the RAM's size that QEMU puts into place is the RAM. (It reserves addresses
// first, without access, and then maps over them.) A userfaultfd is opened then, while QEMU still
// has the rights that it was started with, and stays open: so without an agent the guest waits, and
// never reads zeros. Where QEMU may not have one, it is made from the /dev/userfaultfd that came
// with the environment, opened by somebody who may: that asks for no right. A thread waits to be
// asked for it, and then sees to it that QEMU does not outlive who has started it: what the kernel
// has for that (PR_SET_PDEATHSIG) ends with a change of users.
//
// Nothing but the C++ standard library may come into QEMU with this.
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "client/attach/json_text_splitter.h"
#include "client/lib/failure.h"
#include "client/lib/open_userfaultfd.h"
#include "client/lib/page_bytes.h"
#include "client/unique_fd.h"
#include "client/vm/preload_protocol.h"

namespace faultline {
namespace {

using nlohmann::json;

constexpr size_t kStackBytes = size_t{256} << 10;
constexpr uint64_t kPagesPerLook = uint64_t{1} << 16;

// The RAM and how it came about; written once, before the thread is started, and never destroyed.
struct Ram {
  void* address = nullptr;
  uint64_t bytes = 0;
  UniqueFd told;  // where it is asked for
  UniqueFd uffd;
  Failure failure;  // of opening the uffd
};

uint64_t NumberFromEnvironment(const char* name) {
  const char* text = getenv(name);
  return text == nullptr ? 0 : strtoull(text, nullptr, 10);
}

// How many pages of the RAM there are already.
uint64_t CountPresentPages(const Ram& ram) {
  uint64_t present = 0;
  std::vector<unsigned char> states(kPagesPerLook);
  const uint64_t pages = ram.bytes / kPageBytes;
  for (uint64_t first = 0; first < pages; first += kPagesPerLook) {
    const uint64_t count = std::min(kPagesPerLook, pages - first);
    char* const address = static_cast<char*>(ram.address) + first * kPageBytes;
    if (mincore(address, count * kPageBytes, states.data()) != 0) continue;
    present += static_cast<uint64_t>(
        std::count_if(states.begin(), states.begin() + static_cast<ptrdiff_t>(count),
                      [](unsigned char state) { return (state & 1) != 0; }));
  }
  return present;
}

Failure Check(const Ram& ram, const UniqueFd& pidfd) {
  if (!ram.failure.ok()) return ram.failure;
  if (!pidfd) return SystemFailure("cannot have a pidfd of QEMU");
  const uint64_t present = CountPresentPages(ram);
  if (present == 0) return Success();
  return {EBUSY, "the RAM of QEMU is not empty, " + std::to_string(present) +
                     " pages are there already: start it without prealloc=on and mem-lock=on, "
                     "with -incoming defer, and with a mem-path at which nothing is yet"};
}

void Send(const Ram& ram, const std::string& line, const std::vector<int>& descriptors) {
  iovec part{const_cast<char*>(line.data()), line.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(kPreloadDescriptors * sizeof(int))] = {};
  if (!descriptors.empty()) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(descriptors.size() * sizeof(int));
    cmsghdr* const header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(descriptors.size() * sizeof(int));
    memcpy(CMSG_DATA(header), descriptors.data(), descriptors.size() * sizeof(int));
  }
  // Far smaller than a socket's buffer, so it is sent as a whole.
  [[maybe_unused]] const ssize_t n = sendmsg(ram.told.get(), &message, MSG_NOSIGNAL);
}

void Answer(const Ram& ram) {
  const UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, getpid(), 0)));
  json answer;
  std::vector<int> descriptors;
  if (const Failure failure = Check(ram, pidfd); failure.ok()) {
    answer = {{"status", "ok"},
              {"address", reinterpret_cast<uintptr_t>(ram.address)},
              {"size", ram.bytes}};
    descriptors = {ram.uffd.get(), pidfd.get()};
  } else {
    answer = {{"status", "error"}, {"message", failure.message}};
  }
  Send(ram, answer.dump(-1, ' ', true, json::error_handler_t::replace) + "\n", descriptors);
}

// Until it is told to go on.
void* ServeRam(void* argument) {
  const Ram& ram = *static_cast<const Ram*>(argument);
  JsonTextSplitter splitter(kMaxPreloadMessageBytes);
  while (true) {
    char bytes[256];
    const ssize_t n = recv(ram.told.get(), bytes, sizeof bytes, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    splitter.Append(bytes, static_cast<size_t>(n));
    std::string text;
    if (splitter.Next(&text) != JsonTextSplitter::Result::kText) continue;
    if (text == kPreloadGoOn) return nullptr;
    Answer(ram);
  }
  kill(getpid(), SIGKILL);
  return nullptr;
}

// With all signals blocked: QEMU's are for its own threads.
void StartThread(Ram* ram) {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, kStackBytes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread;
  if (pthread_create(&thread, &attributes, ServeRam, ram) != 0) ram->told.reset();
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  pthread_attr_destroy(&attributes);
}

// What QEMU starts itself is none of ours.
void LeaveEnvironment() {
  for (const char* name :
       {"LD_PRELOAD", kPreloadDescriptor, kPreloadBytes, kPreloadNode, kPreloadHold})
    unsetenv(name);
}

void LookAtMapping(void* address, size_t bytes, int protection, int flags) {
  static std::atomic<bool> done = false;
  if ((flags & MAP_FIXED) == 0 || (protection & PROT_WRITE) == 0) return;
  if (done.load(std::memory_order_relaxed)) return;
  if (bytes == 0 || bytes != NumberFromEnvironment(kPreloadBytes) || done.exchange(true)) return;
  Ram* const ram = new Ram;
  ram->address = address;
  ram->bytes = bytes;
  ram->told.reset(static_cast<int>(NumberFromEnvironment(kPreloadDescriptor)));
  fcntl(ram->told.get(), F_SETFD, FD_CLOEXEC);
  const char* const number = getenv(kPreloadNode);
  const UniqueFd node(number == nullptr || *number == '\0' ? -1 : atoi(number));
  const bool hold = NumberFromEnvironment(kPreloadHold) != 0;
  LeaveEnvironment();
  Send(*ram, kPreloadReady, {});
  ram->failure = OpenUserfaultfd(&ram->uffd);
  if (!ram->uffd && node) ram->failure = OpenUserfaultfdFrom(node.get(), &ram->uffd);
  if (hold) ServeRam(ram);
  StartThread(ram);
}

void* Map(void* address, size_t bytes, int protection, int flags, int fd, int64_t offset) {
  void* const mapped =
      reinterpret_cast<void*>(syscall(SYS_mmap, address, bytes, protection, flags, fd, offset));
  if (mapped == MAP_FAILED) return mapped;
  const int error = errno;
  LookAtMapping(mapped, bytes, protection, flags);
  errno = error;
  return mapped;
}

}  // namespace
}  // namespace faultline

extern "C" {

__attribute__((visibility("default"))) void* mmap(void* address, size_t bytes, int protection,
                                                  int flags, int fd, off_t offset) noexcept {
  return faultline::Map(address, bytes, protection, flags, fd, offset);
}

__attribute__((visibility("default"))) void* mmap64(void* address, size_t bytes, int protection,
                                                    int flags, int fd, off64_t offset) noexcept {
  return faultline::Map(address, bytes, protection, flags, fd, offset);
}

}  // extern "C"
