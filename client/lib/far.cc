// SPDX-License-Identifier: Apache-2.0
//
// Far memory: the second part of faultline.h.
#include <sys/mman.h>

#include <cerrno>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "client/lib/agent_connection.h"
#include "client/lib/agent_watcher.h"
#include "client/lib/failure.h"
#include "client/lib/faultline.h"
#include "client/lib/open_userfaultfd.h"
#include "client/lib/shared.h"
#include "client/unique_fd.h"

using faultline::AgentConnection;
using faultline::AgentWatcher;
using faultline::Failure;
using faultline::kPageBytes;
using faultline::Return;
using faultline::Success;
using faultline::SystemFailure;
using faultline::UniqueFd;
using nlohmann::json;

struct faultline_far {
  explicit faultline_far(std::chrono::milliseconds timeout_in)
      : timeout(timeout_in), agent(timeout_in) {}
  ~faultline_far() {
    watcher.Stop();
    // As of a faultline_mapping: before munmap.
    uffd.reset();
    if (address != nullptr) munmap(address, size);
  }

  const std::chrono::milliseconds timeout;
  AgentConnection agent;  // of the handover; what is asked later has connections of its own
  UniqueFd uffd;
  void* address = nullptr;
  uint64_t size = 0;
  uint64_t attachment = 0;
  AgentWatcher watcher;  // uses `agent`
};

namespace {

enum class Way { kCreate, kOpen, kRestore };

constexpr std::chrono::milliseconds kDefaultFarTimeout{60'000};
// The agent answers in time that something was not done in time.
constexpr std::chrono::milliseconds kAnswerTime{5'000};

std::string Bytes(uint64_t n) { return std::to_string(n) + " bytes"; }

Failure CheckSize(const faultline_far_options& options, Way way) {
  if (options.size % kPageBytes != 0 || (way == Way::kCreate && options.size == 0)) {
    return {EINVAL, "size " + std::to_string(options.size) +
                        " must be a multiple of 4096, and not 0 for a volume to be created"};
  }
  if (options.local_memory == 0) {
    return {EINVAL,
            "local_memory is 0; leave FAULTLINE_LOCAL_MEMORY_DEFAULT for the agent's own budget"};
  }
  return Success();
}

Failure CheckBudget(const faultline_far_options& options, uint64_t size) {
  if (options.local_memory == FAULTLINE_LOCAL_MEMORY_DEFAULT || options.local_memory <= size) {
    return Success();
  }
  return {EINVAL, "local_memory of " + Bytes(options.local_memory) + " is more than the region's " +
                      Bytes(size) + ", of which nothing would ever be far"};
}

Failure CheckOptions(const faultline_far_options& options, Way way) {
  if (options.volume == nullptr) return {EINVAL, "no volume is named"};
  if ((way == Way::kRestore) != (options.snapshot != nullptr)) {
    return {EINVAL, way == Way::kRestore ? "no snapshot is named to restore from"
                                         : "a snapshot is named; use faultline_far_restore"};
  }
  if (Failure failure = CheckSize(options, way); !failure.ok()) return failure;
  if (options.durability != nullptr && way != Way::kCreate) {
    return {EINVAL, "durability is of a volume that is created"};
  }
  return faultline::CheckCommon(options.on_agent_loss);
}

// Sets the region's size: that of the volume, or of the snapshot that it is made of.
Failure FindSize(const faultline_far_options& options, Way way, faultline_far* far) {
  far->size = options.size;
  if (way != Way::kCreate) {
    const char* const from = way == Way::kRestore ? options.snapshot : options.volume;
    if (Failure failure = faultline::AskVolumeSize(&far->agent, from, &far->size); !failure.ok()) {
      return failure;
    }
    if (options.size != 0 && options.size != far->size) {
      return {EINVAL, std::string(from) + " has " + Bytes(far->size) + ", not the " +
                          Bytes(options.size) + " that the options say"};
    }
    if (far->size % kPageBytes != 0) {
      return {EINVAL, std::string(from) + " has " + Bytes(far->size) +
                          ", no multiple of 4096: it cannot be far memory"};
    }
  }
  return CheckBudget(options, far->size);
}

json FarKeys(const faultline_far_options& options, Way way, const faultline_far& far) {
  json keys = json::object();
  if (options.local_memory != FAULTLINE_LOCAL_MEMORY_DEFAULT) {
    keys["local_memory"] = options.local_memory;
  }
  if (options.policy != nullptr) keys["policy"] = options.policy;
  if (way == Way::kCreate) keys["create_volume"] = far.size;
  if (way == Way::kRestore) keys["from_snapshot"] = options.snapshot;
  if (options.durability != nullptr) keys["durability"] = options.durability;
  return keys;
}

Failure HandOver(const faultline_far_options& options, Way way, faultline_far* far) {
  UniqueFd memfd(memfd_create("faultline-far", MFD_CLOEXEC));
  if (!memfd || ftruncate(memfd.get(), static_cast<off_t>(far->size)) != 0) {
    return SystemFailure("cannot make a memfd of " + Bytes(far->size));
  }
  Failure failure = faultline::MapAlone(memfd.get(), far->size, &far->address);
  if (!failure.ok()) return failure;
  const json range = {{"base_host_virt_addr", reinterpret_cast<uintptr_t>(far->address)},
                      {"size", far->size},
                      {"offset", 0},
                      {"page_size", kPageBytes},
                      {"memfd", 0}};
  json request = {{"volume", options.volume},
                  {"mappings", json::array({range})},
                  {"mode", "far"},
                  {"register", true},
                  {"drain", false},
                  {"shared_discard", "keep"},
                  {"fault_policy", "wait"},
                  {"far", FarKeys(options, way, *far)}};
  if (options.prefetch != nullptr) request["prefetch"] = options.prefetch;
  // The memfd is the agent's from here on: whoever else had it could write past the protection.
  return faultline::AskToAttach(&far->agent, request, {far->uffd.get(), memfd.get()},
                                &far->attachment);
}

Failure Open(const faultline_far_options& options, Way way, faultline_far* far) {
  Failure failure = far->agent.Connect(faultline::SocketPath(options.socket_path));
  if (!failure.ok()) return failure;
  if (failure = FindSize(options, way, far); !failure.ok()) return failure;
  if (failure = faultline::OpenUserfaultfd(&far->uffd); !failure.ok()) return failure;
  if (failure = HandOver(options, way, far); !failure.ok()) return failure;
  return faultline::Watch(&far->watcher, far->agent, options.on_agent_loss, options.volume);
}

int OpenFar(const faultline_far_options* options, Way way, faultline_far** far,
            faultline_error* error) {
  if (options == nullptr || far == nullptr) {
    return Return({EINVAL, "far memory needs options and a place for the handle"}, error);
  }
  faultline_far_options known = FAULTLINE_FAR_OPTIONS_INIT;
  Failure failure = faultline::CopyOptions(*options, "FAULTLINE_FAR_OPTIONS_INIT", &known);
  if (failure.ok()) failure = CheckOptions(known, way);
  if (!failure.ok()) return Return(failure, error);
  const auto timeout =
      known.timeout_ms == 0 ? kDefaultFarTimeout : std::chrono::milliseconds(known.timeout_ms);
  auto made = std::make_unique<faultline_far>(timeout);
  failure = Open(known, way, made.get());
  if (failure.ok()) *far = made.release();
  return Return(failure, error);
}

// Each on a connection of its own, so that threads do not wait for each other's answers.
Failure Command(const faultline_far& far, json request) {
  AgentConnection connection(far.timeout + kAnswerTime);
  Failure failure = connection.Connect(far.agent.path());
  if (!failure.ok()) return failure;
  request["attachment"] = far.attachment;
  request["timeout_ms"] = far.timeout.count();
  json answer;
  return connection.Ask(request, {}, &answer);
}

void Unmap(faultline_far* far) {
  far->watcher.Stop();
  far->uffd.reset();
  munmap(far->address, far->size);
  far->address = nullptr;
}

}  // namespace

int faultline_far_create(const faultline_far_options* options, faultline_far** far,
                         faultline_error* error) {
  return OpenFar(options, Way::kCreate, far, error);
}

int faultline_far_open(const faultline_far_options* options, faultline_far** far,
                       faultline_error* error) {
  return OpenFar(options, Way::kOpen, far, error);
}

int faultline_far_restore(const faultline_far_options* options, faultline_far** far,
                          faultline_error* error) {
  return OpenFar(options, Way::kRestore, far, error);
}

int faultline_far_advise(faultline_far* far, uint64_t offset, uint64_t length, int advice,
                         faultline_error* error) {
  constexpr const char* kNames[] = {"will_need", "will_not_need", "pin", "unpin"};
  if (far == nullptr) return Return({EINVAL, "there is no far memory"}, error);
  if (advice < FAULTLINE_FAR_WILL_NEED || advice > FAULTLINE_FAR_UNPIN) {
    return Return({EINVAL, "unknown advice " + std::to_string(advice)}, error);
  }
  if (offset % kPageBytes != 0 || length % kPageBytes != 0 || length == 0 || offset > far->size ||
      length > far->size - offset) {
    return Return(
        {EINVAL, "offset " + std::to_string(offset) + " and length " + std::to_string(length) +
                     " must be multiples of 4096, and within the region's " + Bytes(far->size)},
        error);
  }
  return Return(
      Command(*far, {{"far_command", kNames[advice]}, {"offset", offset}, {"length", length}}),
      error);
}

int faultline_far_flush(faultline_far* far, faultline_error* error) {
  if (far == nullptr) return Return({EINVAL, "there is no far memory"}, error);
  return Return(Command(*far, {{"far_command", "flush"}}), error);
}

int faultline_far_checkpoint(faultline_far* far, const char* snapshot, faultline_error* error) {
  if (far == nullptr) return Return({EINVAL, "there is no far memory"}, error);
  if (snapshot == nullptr) return Return({EINVAL, "no snapshot is named"}, error);
  return Return(Command(*far, {{"far_command", "checkpoint"}, {"snapshot", snapshot}}), error);
}

int faultline_far_close(faultline_far* far, faultline_error* error) {
  if (far == nullptr) return Return({EINVAL, "there is no far memory"}, error);
  if (const int flushed = faultline_far_flush(far, error); flushed != 0) return flushed;
  const std::unique_ptr<faultline_far> owned(far);
  Unmap(far);
  Failure failure = far->agent.Detach(far->attachment, std::chrono::milliseconds(0));
  // As of faultline_unmap: all is on the server, and nothing is left to detach from.
  if (IsAgentLoss(failure)) failure = Success();
  return Return(failure, error);
}

void faultline_far_abandon(faultline_far* far) {
  if (far == nullptr) return;
  const std::unique_ptr<faultline_far> owned(far);
  Unmap(far);
  // It ends with this process, otherwise.
  static_cast<void>(far->agent.Detach(far->attachment, std::chrono::milliseconds(0)));
}

void* faultline_far_address(const faultline_far* far) { return far->address; }
uint64_t faultline_far_size(const faultline_far* far) { return far->size; }
uint64_t faultline_far_attachment(const faultline_far* far) { return far->attachment; }
