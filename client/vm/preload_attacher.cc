// SPDX-License-Identifier: Apache-2.0
#include "client/vm/preload_attacher.h"

#include <absl/strings/str_cat.h>
#include <absl/time/clock.h>
#include <absl/time/time.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "client/attach/json_text_splitter.h"
#include "client/unique_fd.h"
#include "client/vm/preload_protocol.h"

namespace faultline {
namespace {

using nlohmann::json;

// The agent's own answer may wait for a page server and a working set.
constexpr absl::Duration kAgentTimeout = absl::Seconds(60);
constexpr absl::Duration kAnswerTimeout = absl::Seconds(70);
// The library says that it has found the RAM long before QEMU can be asked anything.
constexpr absl::Duration kReadyTimeout = absl::Seconds(5);

absl::StatusOr<std::string> FindLibrary() {
  std::error_code error;
  const std::filesystem::path folder =
      std::filesystem::read_symlink("/proc/self/exe", error).parent_path();
  for (const std::filesystem::path& path :
       {folder / kPreloadLibrary, folder / ".." / "lib" / kPreloadLibrary}) {
    if (std::filesystem::exists(path, error)) return path.lexically_normal().string();
  }
  return absl::NotFoundError(absl::StrCat("there is no ", kPreloadLibrary, " in ", folder.string(),
                                          " or ../lib; install it beside this program"));
}

absl::Status NotLoaded(absl::string_view reason) {
  return absl::FailedPreconditionError(
      absl::StrCat("the RAM was not handed over: ", reason,
                   "; the command must start QEMU itself (a wrapper may neither clear the "
                   "environment nor close descriptors), with RAM of the size that was saved"));
}

class PreloadAttacher final : public MemoryAttacher {
 public:
  PreloadAttacher(std::string library, uint64_t ram_bytes)
      : library_(std::move(library)), ram_bytes_(ram_bytes) {}

  absl::Status Prepare(std::vector<std::string>* argv) override;
  absl::StatusOr<AttachmentId> Attach(pid_t pid, const GuestMemory& memory) override;

 private:
  absl::StatusOr<json> Receive(absl::Duration timeout);

  const std::string library_;
  const uint64_t ram_bytes_;
  UniqueFd ours_;
  UniqueFd theirs_;  // inherited by what is started, and then of no use here
  JsonTextSplitter splitter_{kMaxPreloadMessageBytes};
};

absl::Status PreloadAttacher::Prepare(std::vector<std::string>* argv) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    return absl::ErrnoToStatus(errno, "cannot make a pair of sockets");
  }
  ours_.reset(ends[0]);
  theirs_.reset(ends[1]);
  fcntl(theirs_.get(), F_SETFD, 0);
  const char* others = getenv("LD_PRELOAD");
  const std::vector<std::string> prefix = {
      "env",
      absl::StrCat("LD_PRELOAD=", library_, others == nullptr ? "" : ":",
                   others == nullptr ? "" : others),
      absl::StrCat(kPreloadDescriptor, "=", theirs_.get()),
      absl::StrCat(kPreloadBytes, "=", ram_bytes_)};
  argv->insert(argv->begin(), prefix.begin(), prefix.end());
  return absl::OkStatus();
}

absl::StatusOr<AttachmentId> PreloadAttacher::Attach(pid_t, const GuestMemory& memory) {
  theirs_.reset();  // so that the end of QEMU is the end of the connection
  if (const absl::StatusOr<json> ready = Receive(kReadyTimeout); !ready.ok()) return ready.status();
  json handover = {{"volume", memory.volume}, {"mode", "lazy"}, {"register", true}};
  if (memory.drain.has_value()) handover["drain"] = *memory.drain;
  if (!memory.prefetch.empty()) handover["prefetch"] = memory.prefetch;
  if (!memory.working_set.empty()) handover["working_set"] = memory.working_set;
  const json request = {{"socket", memory.agent_socket},
                        {"timeout_ms", absl::ToInt64Milliseconds(kAgentTimeout)},
                        {"handover", std::move(handover)}};
  const std::string text = request.dump(-1, ' ', true, json::error_handler_t::replace);
  // Far smaller than a socket's buffer, so it is sent as a whole.
  if (send(ours_.get(), text.data(), text.size(), MSG_NOSIGNAL) !=
      static_cast<ssize_t>(text.size())) {
    return NotLoaded("nobody takes the request");
  }
  absl::StatusOr<json> answer = Receive(kAnswerTimeout);
  if (!answer.ok()) return answer.status();
  if (answer->value("status", json()) == "ok" &&
      answer->value("attachment", json()).is_number_unsigned()) {
    return (*answer)["attachment"].get<AttachmentId>();
  }
  const json message = answer->value("message", json());
  return absl::FailedPreconditionError(message.is_string() ? message.get<std::string>()
                                                           : "the RAM was not handed over");
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
    char bytes[4096];
    const ssize_t n = recv(ours_.get(), bytes, sizeof bytes, 0);
    if (n <= 0) return NotLoaded("the library is not there, or has not found it");
    splitter_.Append(bytes, static_cast<size_t>(n));
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<MemoryAttacher>> NewPreloadAttacher(uint64_t ram_bytes) {
  absl::StatusOr<std::string> library = FindLibrary();
  if (!library.ok()) return library.status();
  return std::make_unique<PreloadAttacher>(*std::move(library), ram_bytes);
}

}  // namespace faultline
