// SPDX-License-Identifier: Apache-2.0
#include "client/lib/faultline.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>

#include <nlohmann/json.hpp>

#include "client/lib/agent_connection.h"
#include "client/lib/agent_watcher.h"
#include "client/lib/failure.h"
#include "client/lib/open_userfaultfd.h"
#include "client/lib/page_bytes.h"
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

struct faultline_mapping {
  explicit faultline_mapping(std::chrono::milliseconds timeout) : agent(timeout) {}
  ~faultline_mapping() {
    watcher.Stop();
    // Before munmap: without an agent nobody else would have it any more, and munmap would wait for
    // somebody to read of it.
    uffd.reset();
    if (address != nullptr) munmap(address, length);
  }

  AgentConnection agent;
  UniqueFd uffd;
  UniqueFd memfd;
  void* address = nullptr;
  uint64_t length = 0;
  uint64_t attachment = 0;
  AgentWatcher watcher;  // uses `agent`
};

namespace {

constexpr std::chrono::milliseconds kDefaultTimeout{30'000};

Failure CheckOptions(const faultline_map_options& options) {
  if (options.volume == nullptr) return {EINVAL, "no volume is named"};
  if (options.offset % kPageBytes != 0 || options.length % kPageBytes != 0) {
    return {EINVAL, "offset " + std::to_string(options.offset) + " and length " +
                        std::to_string(options.length) + " must be multiples of 4096"};
  }
  if (options.memory != FAULTLINE_MAP_PRIVATE && options.memory != FAULTLINE_MAP_SHARED) {
    return {EINVAL, "unknown kind of memory " + std::to_string(options.memory)};
  }
  return faultline::CheckCommon(options.on_agent_loss);
}

// Sets the length that is to be mapped: what the options say, or the rest of the volume.
Failure FindLength(const faultline_map_options& options, faultline_mapping* mapping) {
  mapping->length = options.length;
  if (options.length != 0) return Success();
  uint64_t bytes = 0;
  Failure failure = faultline::AskVolumeSize(&mapping->agent, options.volume, &bytes);
  if (!failure.ok()) return failure;
  if (options.offset >= bytes) {
    return {EINVAL, "offset " + std::to_string(options.offset) + " is not within volume " +
                        options.volume + ", which has " + std::to_string(bytes) + " bytes"};
  }
  mapping->length = bytes - options.offset;
  return Success();
}

Failure MapMemory(const faultline_map_options& options, faultline_mapping* mapping) {
  if (options.memory == FAULTLINE_MAP_SHARED) {
    mapping->memfd.reset(memfd_create("faultline", MFD_CLOEXEC));
    if (!mapping->memfd ||
        ftruncate(mapping->memfd.get(), static_cast<off_t>(mapping->length)) != 0) {
      return SystemFailure("cannot make a memfd of " + std::to_string(mapping->length) + " bytes");
    }
  }
  return faultline::MapAlone(mapping->memfd.get(), mapping->length, &mapping->address);
}

Failure HandOver(const faultline_map_options& options, faultline_mapping* mapping) {
  json range = {{"base_host_virt_addr", reinterpret_cast<uintptr_t>(mapping->address)},
                {"size", mapping->length},
                {"offset", options.offset},
                {"page_size", kPageBytes}};
  std::vector<int> descriptors = {mapping->uffd.get()};
  if (mapping->memfd) {
    range["memfd"] = 0;
    descriptors.push_back(mapping->memfd.get());
  }
  const json request = {{"volume", options.volume},
                        {"mappings", json::array({range})},
                        {"mode", "lazy"},
                        {"register", true}};
  return faultline::AskToAttach(&mapping->agent, request, descriptors, &mapping->attachment);
}

Failure Map(const faultline_map_options& options, faultline_mapping* mapping) {
  Failure failure = mapping->agent.Connect(faultline::SocketPath(options.socket_path));
  if (!failure.ok()) return failure;
  if (failure = FindLength(options, mapping); !failure.ok()) return failure;
  if (failure = faultline::OpenUserfaultfd(&mapping->uffd); !failure.ok()) return failure;
  if (failure = MapMemory(options, mapping); !failure.ok()) return failure;
  if (failure = HandOver(options, mapping); !failure.ok()) return failure;
  return faultline::Watch(&mapping->watcher, mapping->agent, options.on_agent_loss, options.volume);
}

}  // namespace

int faultline_map(const faultline_map_options* options, faultline_mapping** mapping,
                  faultline_error* error) {
  if (options == nullptr || mapping == nullptr) {
    return Return({EINVAL, "faultline_map needs options and a place for the mapping"}, error);
  }
  faultline_map_options known = FAULTLINE_MAP_OPTIONS_INIT;
  Failure failure = faultline::CopyOptions(*options, "FAULTLINE_MAP_OPTIONS_INIT", &known);
  if (failure.ok()) failure = CheckOptions(known);
  if (!failure.ok()) return Return(failure, error);
  const auto timeout =
      known.timeout_ms == 0 ? kDefaultTimeout : std::chrono::milliseconds(known.timeout_ms);
  auto made = std::make_unique<faultline_mapping>(timeout);
  failure = Map(known, made.get());
  if (failure.ok()) *mapping = made.release();
  return Return(failure, error);
}

int faultline_unmap(faultline_mapping* mapping, faultline_error* error) {
  if (mapping == nullptr) return Return({EINVAL, "there is no mapping"}, error);
  const std::unique_ptr<faultline_mapping> owned(mapping);
  // In this order: from here on the end of the agent is no loss; our descriptor goes before munmap,
  // which waits for the agent to read of it, but not for one that is gone with the last descriptor.
  mapping->watcher.Stop();
  mapping->uffd.reset();
  munmap(mapping->address, mapping->length);
  mapping->address = nullptr;
  Failure failure = mapping->agent.Detach(mapping->attachment, std::chrono::milliseconds(0));
  // The memory is gone, and where nobody is in the place of an agent that was killed, nothing is
  // left to detach from.
  if (IsAgentLoss(failure)) failure = Success();
  return Return(failure, error);
}

void* faultline_address(const faultline_mapping* mapping) { return mapping->address; }
uint64_t faultline_length(const faultline_mapping* mapping) { return mapping->length; }
uint64_t faultline_attachment(const faultline_mapping* mapping) { return mapping->attachment; }
int faultline_memfd(const faultline_mapping* mapping) { return mapping->memfd.get(); }
