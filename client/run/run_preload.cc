// SPDX-License-Identifier: Apache-2.0
//
// libfaultline-run-preload.so: loaded into a program before it begins, it makes the program's
// anonymous memory far memory: starts an eviction helper (far/eviction_helper.h) and hands the
// userfaultfd over to the agent, which looks for the memory by itself. It interposes nothing.
//
// A program that is executed has the library again, by the environment. A forked child's memory is
// served by the agent as its parent's was, but stays in memory: it has no helper.
//
// Nothing but the C++ standard library may come into the program with this.
#include <sys/prctl.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>

#include <nlohmann/json.hpp>

#include "client/far/eviction_helper.h"
#include "client/lib/agent_connection.h"
#include "client/lib/failure.h"
#include "client/lib/open_userfaultfd.h"
#include "client/run/run_protocol.h"
#include "client/unique_fd.h"

namespace faultline {
namespace {

using nlohmann::json;

constexpr std::chrono::milliseconds kTimeout{30'000};
constexpr std::chrono::seconds kAgentPatience{10};
constexpr std::chrono::milliseconds kAgentPause{20};

json RequestOf(const EvictionHelper& helper, const std::string& first) {
  json far = {{"helper",
               {{"command", 0},
                {"start", helper.memory_start},
                {"size", helper.memory_bytes},
                {"staging", helper.staging_start},
                {"staging_size", helper.staging_bytes}}},
              {"fresh", true}};
  if (const char* least = getenv(kRunLeast); least != nullptr) {
    far["least"] = strtoull(least, nullptr, 10);
  }
  const bool is_new = first.empty() || first == "new";
  if (is_new) far["make_volume"] = kRunVolumeBytes;
  const char* const prefix = getenv(kRunVolume);
  return {{"volume", is_new ? (prefix != nullptr ? prefix : "run") : first},
          {"mode", "far"},
          {"register", true},
          {"far", far}};
}

Failure TryToMakeMemoryFar(const std::string& socket, const std::string& first) {
  AgentConnection agent(kTimeout);
  if (Failure failure = agent.Connect(socket); !failure.ok()) return failure;
  UniqueFd uffd;
  if (Failure failure = OpenUserfaultfd(&uffd); !failure.ok()) return failure;
  EvictionHelper helper;
  if (const int error = PrepareEvictionHelper(&helper); error != 0) {
    return {error, std::string("pages of this process cannot be taken out of memory "
                               "(UFFDIO_MOVE needs Linux 6.8): ") +
                       strerror(error)};
  }
  json answer;
  Failure failure = agent.Ask(RequestOf(helper, first), {uffd.get(), helper.command_fd}, &answer);
  if (!failure.ok()) {
    DiscardEvictionHelper(&helper);
    return failure;
  }
  const UniqueFd command(helper.command_fd);
  const int error = StartEvictionHelper(&helper, uffd.get());
  if (error != 0) {
    return {error, std::string("the eviction helper cannot be started: ") + strerror(error)};
  }
  return Success();
}

// Where the agent is killed another comes in its place, for as long as its directory is there.
Failure MakeMemoryFar(const std::string& socket, const std::string& first) {
  const std::string directory = socket.substr(0, socket.rfind('/'));
  const auto patience = std::chrono::steady_clock::now() + kAgentPatience;
  while (true) {
    Failure failure = TryToMakeMemoryFar(socket, first);
    if (failure.ok() || !IsAgentLoss(failure) || access(directory.c_str(), F_OK) != 0 ||
        std::chrono::steady_clock::now() > patience) {
      return failure;
    }
    std::this_thread::sleep_for(kAgentPause);
  }
}

__attribute__((constructor)) void Begin() {
  const char* const socket = getenv(kRunSocket);
  if (socket == nullptr) return;
  const char* const value = getenv(kRunFirst);
  const std::string first = value == nullptr ? "" : value;
  unsetenv(kRunFirst);
  // A huge page could only be evicted in pieces, and is never filled as one.
  prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
  const Failure failure = MakeMemoryFar(socket, first);
  if (failure.ok()) return;
  fprintf(stderr, "faultline run: %s (pid %d) %s: %s\n", program_invocation_short_name, getpid(),
          first.empty() ? "runs with ordinary memory" : "cannot have far memory",
          failure.message.c_str());
  if (!first.empty()) _exit(kRunRefused);
}

}  // namespace
}  // namespace faultline
