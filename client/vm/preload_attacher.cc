// SPDX-License-Identifier: Apache-2.0
#include "client/vm/preload_attacher.h"

#include <absl/strings/str_cat.h>
#include <absl/time/clock.h>
#include <absl/time/time.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "client/attach/handover_socket.h"
#include "client/attach/json_text_splitter.h"
#include "client/bench/local_stack.h"
#include "client/lib/agent_connection.h"
#include "client/unique_fd.h"
#include "client/vm/preload_protocol.h"

namespace faultline {
namespace {

using nlohmann::json;

// The agent's own answer may wait for a page server and a working set.
constexpr std::chrono::seconds kAgentTimeout{60};
constexpr absl::Duration kAnswerTimeout = absl::Seconds(10);
// The library says that it has found the RAM long before QEMU can be asked anything.
constexpr absl::Duration kReadyTimeout = absl::Seconds(5);

absl::Status NotLoaded(absl::string_view reason) {
  return absl::FailedPreconditionError(
      absl::StrCat("the RAM was not handed over: ", reason,
                   "; the command must start QEMU itself (a wrapper may neither clear the "
                   "environment nor close descriptors), with RAM of the size that was saved"));
}

absl::string_view AgentPolicy(VmFaultPolicy policy) {
  switch (policy) {
    case VmFaultPolicy::kPoison:
      return FaultPolicyName(FaultPolicy::kPoison);
    case VmFaultPolicy::kKill:
      return FaultPolicyName(FaultPolicy::kKill);
    case VmFaultPolicy::kStop:  // is not the agent's business
    case VmFaultPolicy::kWait:
      break;
  }
  return FaultPolicyName(FaultPolicy::kWait);
}

json Handover(const GuestMemory& memory, const json& address) {
  json handover = {
      {"volume", memory.volume},
      {"mode", "lazy"},
      {"register", true},
      {"unregister", true},
      {"pidfd", 0},
      {"fault_policy", std::string(AgentPolicy(memory.fault_policy))},
      {"fault_deadline_ms", absl::ToInt64Milliseconds(memory.fault_deadline)},
      {"mappings",
       json::array(
           {{{"base_host_virt_addr", address}, {"size", memory.ram_bytes}, {"offset", 0}}})}};
  if (memory.drain.has_value()) handover["drain"] = *memory.drain;
  if (!memory.prefetch.empty()) handover["prefetch"] = memory.prefetch;
  if (!memory.working_set.empty()) handover["working_set"] = memory.working_set;
  if (!memory.first_pages.empty()) handover["first_pages"] = memory.first_pages;
  return handover;
}

class PreloadAttacher final : public MemoryAttacher {
 public:
  PreloadAttacher(std::string library, uint64_t ram_bytes)
      : library_(std::move(library)), ram_bytes_(ram_bytes) {}

  absl::Status Prepare(When when, std::vector<std::string>* environment) override;
  absl::StatusOr<AttachmentId> Attach(const GuestMemory& memory) override;

 private:
  absl::StatusOr<AttachmentId> HandOver(const GuestMemory& memory);
  absl::Status Tell(absl::string_view text);
  absl::StatusOr<json> Receive(absl::Duration timeout);

  const std::string library_;
  const uint64_t ram_bytes_;
  When when_ = When::kLater;
  UniqueFd ours_;           // its end is QEMU's
  UniqueFd theirs_, node_;  // inherited by what is started, and then of no use here
  JsonTextSplitter splitter_{kMaxPreloadMessageBytes};
  std::vector<UniqueFd> descriptors_;  // that have come
};

absl::Status PreloadAttacher::Prepare(When when, std::vector<std::string>* environment) {
  when_ = when;
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    return absl::ErrnoToStatus(errno, "cannot make a pair of sockets");
  }
  ours_.reset(ends[0]);
  theirs_.reset(ends[1]);
  fcntl(theirs_.get(), F_SETFD, 0);
  // Where even this process may not open it, QEMU's own rights decide.
  node_.reset(open("/dev/userfaultfd", O_RDWR));
  const char* others = getenv("LD_PRELOAD");
  *environment = {absl::StrCat("LD_PRELOAD=", library_, others == nullptr ? "" : ":",
                               others == nullptr ? "" : others),
                  absl::StrCat(kPreloadDescriptor, "=", theirs_.get()),
                  absl::StrCat(kPreloadBytes, "=", ram_bytes_),
                  absl::StrCat(kPreloadNode, "=", node_ ? absl::StrCat(node_.get()) : ""),
                  absl::StrCat(kPreloadHold, "=", when == When::kAtOnce ? 1 : 0)};
  return absl::OkStatus();
}

absl::StatusOr<AttachmentId> PreloadAttacher::Attach(const GuestMemory& memory) {
  absl::StatusOr<AttachmentId> attachment = HandOver(memory);
  // Also a QEMU whose RAM is refused: what it says of itself may be the reason.
  if (when_ == When::kAtOnce) Tell(kPreloadGoOn).IgnoreError();
  return attachment;
}

absl::StatusOr<AttachmentId> PreloadAttacher::HandOver(const GuestMemory& memory) {
  theirs_.reset();  // so that the end of QEMU is the end of the connection
  node_.reset();
  if (const absl::StatusOr<json> ready = Receive(kReadyTimeout); !ready.ok()) return ready.status();
  if (absl::Status status = Tell(kPreloadRequest); !status.ok()) return status;
  const absl::StatusOr<json> ram = Receive(kAnswerTimeout);
  if (!ram.ok()) return ram.status();
  if (ram->value("status", json()) != "ok" || descriptors_.size() != kPreloadDescriptors) {
    const json message = ram->value("message", json());
    return absl::FailedPreconditionError(message.is_string() ? message.get<std::string>()
                                                             : "the RAM was not handed over");
  }
  const std::vector<UniqueFd> descriptors = std::exchange(descriptors_, {});
  AgentConnection agent(kAgentTimeout);
  Failure failure = agent.Connect(memory.agent_socket);
  json answer;
  if (failure.ok()) {
    failure = agent.Ask(Handover(memory, ram->value("address", json())),
                        {descriptors[0].get(), descriptors[1].get()}, &answer);
  }
  if (!failure.ok()) return absl::FailedPreconditionError(failure.message);
  if (!answer.value("attachment", json()).is_number_unsigned()) {
    return absl::InternalError(absl::StrCat("the agent's answer is none: ", answer.dump()));
  }
  return answer["attachment"].get<AttachmentId>();
}

absl::Status PreloadAttacher::Tell(absl::string_view text) {
  if (send(ours_.get(), text.data(), text.size(), MSG_NOSIGNAL) < 0) {
    return NotLoaded("nobody takes the request");
  }
  return absl::OkStatus();
}

absl::StatusOr<json> PreloadAttacher::Receive(absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  std::string text;
  while (true) {
    const JsonTextSplitter::Result result = splitter_.Next(&text);
    if (result == JsonTextSplitter::Result::kText) {
      json answer = json::parse(text, nullptr, /*allow_exceptions=*/false);
      if (answer.is_object()) return answer;
    }
    if (result != JsonTextSplitter::Result::kNeedMore) return NotLoaded("the answer is none");
    pollfd readable{ours_.get(), POLLIN, 0};
    const int64_t left = absl::ToInt64Milliseconds(deadline - absl::Now());
    if (left <= 0) return NotLoaded("no answer came in time");
    if (poll(&readable, 1, static_cast<int>(left)) <= 0) continue;
    std::array<char, 4096> bytes;
    const auto received =
        ReceiveWithDescriptors(ours_.get(), bytes, kPreloadDescriptors, &descriptors_);
    if (!received.ok() || (*received && (*received)->bytes == 0)) {
      return NotLoaded("the library is not there, or has not found it");
    }
    if (*received) splitter_.Append(bytes.data(), (*received)->bytes);
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<MemoryAttacher>> NewPreloadAttacher(uint64_t ram_bytes) {
  absl::StatusOr<std::string> library = SiblingLibrary(kPreloadLibrary);
  if (!library.ok()) return library.status();
  return std::make_unique<PreloadAttacher>(*std::move(library), ram_bytes);
}

}  // namespace faultline
