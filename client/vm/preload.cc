// SPDX-License-Identifier: Apache-2.0
//
// libfaultline-vm-preload.so: loaded into a QEMU by PreloadAttacher (preload_protocol.h), it hands
// the guest's RAM over to an agent.
//
// The first mapping of the RAM's size that QEMU puts into place is the RAM. (It reserves addresses
// first, without access, and then maps over them.) A userfaultfd is opened then, while QEMU still
// has the rights that it was started with, and stays open: so without an agent the guest waits, and
// never reads zeros. A thread waits to be told which agent shall serve it.
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
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "client/attach/json_text_splitter.h"
#include "client/lib/agent_connection.h"
#include "client/lib/failure.h"
#include "client/lib/open_userfaultfd.h"
#include "client/unique_fd.h"
#include "client/vm/preload_protocol.h"

namespace faultline {
namespace {

using nlohmann::json;

constexpr uint64_t kPageBytes = 4096;
constexpr size_t kStackBytes = size_t{256} << 10;
constexpr uint64_t kPagesPerLook = uint64_t{1} << 16;

// The RAM and how it came about; written once, before the thread is started, and never destroyed.
struct Ram {
  void* address = nullptr;
  uint64_t bytes = 0;
  UniqueFd told;  // where it is told what to do
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

Failure HandOver(const Ram& ram, const json& request, json* answer) {
  if (!ram.failure.ok()) return ram.failure;
  if (const uint64_t present = CountPresentPages(ram); present != 0) {
    return {EBUSY, "the RAM of QEMU is not empty, " + std::to_string(present) +
                       " pages are there already: start it without prealloc=on and mem-lock=on, "
                       "with -incoming defer, and with a mem-path at which nothing is yet"};
  }
  static AgentConnection* const agent =  // held: its end is the agent's word on the attachment
      new AgentConnection(std::chrono::milliseconds(request.at("timeout_ms").get<uint64_t>()));
  Failure failure = agent->Connect(request.at("socket").get<std::string>());
  if (!failure.ok()) return failure;
  json handover = request.at("handover");
  handover["mappings"] =
      json::array({{{"base_host_virt_addr", reinterpret_cast<uintptr_t>(ram.address)},
                    {"size", ram.bytes},
                    {"offset", 0},
                    {"page_size", kPageBytes}}});
  return agent->Ask(handover, {ram.uffd.get()}, answer);
}

// The answer to what the thread was told, in one line.
std::string Answer(const Ram& ram, const std::string& text) {
  json answer;
  Failure failure;
  try {
    failure = HandOver(ram, json::parse(text), &answer);
  } catch (const std::exception& e) {
    failure = {EPROTO, std::string("what was to be handed over cannot be read: ") + e.what()};
  }
  if (!failure.ok()) answer = {{"status", "error"}, {"message", failure.message}};
  return answer.dump(-1, ' ', true, json::error_handler_t::replace) + "\n";
}

void* ServeRam(void* argument) {
  const Ram& ram = *static_cast<const Ram*>(argument);
  JsonTextSplitter splitter(kMaxPreloadMessageBytes);
  std::string text;
  JsonTextSplitter::Result result;
  while ((result = splitter.Next(&text)) == JsonTextSplitter::Result::kNeedMore) {
    char bytes[4096];
    const ssize_t n = recv(ram.told.get(), bytes, sizeof bytes, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return nullptr;  // nobody wants it any more
    splitter.Append(bytes, static_cast<size_t>(n));
  }
  if (result != JsonTextSplitter::Result::kText) return nullptr;
  const std::string answer = Answer(ram, text);
  [[maybe_unused]] const ssize_t n =
      send(ram.told.get(), answer.data(), answer.size(), MSG_NOSIGNAL);
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
  for (const char* name : {"LD_PRELOAD", kPreloadDescriptor, kPreloadBytes}) unsetenv(name);
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
  LeaveEnvironment();
  [[maybe_unused]] const ssize_t n =
      send(ram->told.get(), kPreloadReady, sizeof kPreloadReady - 1, MSG_NOSIGNAL);
  ram->failure = OpenUserfaultfd(&ram->uffd);
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
