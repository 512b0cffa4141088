// SPDX-License-Identifier: Apache-2.0
#include "client/cli/agent_query.h"

#include <absl/strings/str_cat.h>
#include <absl/time/clock.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>

#include <nlohmann/json.hpp>

#include "client/cli/format.h"
#include "client/unique_fd.h"

namespace faultline {
namespace {

constexpr size_t kMaxAnswerBytes = 64 << 20;
constexpr absl::Duration kAttachmentsTimeout = absl::Seconds(10);

absl::Status Unreachable(absl::string_view path, absl::string_view reason) {
  return absl::UnavailableError(
      absl::StrCat("cannot reach an agent at ", path, " (", reason,
                   "); check that faultline-agent runs with --socket=", path));
}

absl::StatusOr<UniqueFd> Connect(const std::string& path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    return absl::InvalidArgumentError(absl::StrCat("\"", path, "\" is no path of a socket: 1 to ",
                                                   sizeof address.sun_path - 1, " bytes"));
  }
  memcpy(address.sun_path, path.data(), path.size());
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd || connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    return Unreachable(path, strerror(errno));
  }
  return fd;
}

}  // namespace

absl::StatusOr<std::string> QueryAgent(const std::string& path, absl::string_view query,
                                       absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  const absl::StatusOr<UniqueFd> fd = Connect(path);
  if (!fd.ok()) return fd.status();
  // A query is far smaller than a socket's buffer, so it is sent as a whole.
  if (send(fd->get(), query.data(), query.size(), MSG_NOSIGNAL) !=
      static_cast<ssize_t>(query.size())) {
    return Unreachable(path, strerror(errno));
  }
  std::string answer;
  while (answer.size() < kMaxAnswerBytes) {
    pollfd readable = {fd->get(), POLLIN, 0};
    const int64_t left = absl::ToInt64Milliseconds(deadline - absl::Now());
    const int ready = left <= 0 ? 0 : poll(&readable, 1, static_cast<int>(left));
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) return Unreachable(path, ready == 0 ? "no answer in time" : strerror(errno));
    char buffer[65536];
    const ssize_t n = recv(fd->get(), buffer, sizeof buffer, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Unreachable(path, strerror(errno));
    if (n == 0) break;
    answer.append(buffer, static_cast<size_t>(n));
    if (answer.back() == '}' || answer.back() == '\n') {
      if (nlohmann::json::accept(answer)) return answer;
    }
  }
  if (answer.empty()) return Unreachable(path, "it closed the connection without an answer");
  return answer;
}

absl::StatusOr<std::vector<AttachmentStats>> QueryAttachments(const std::string& path) {
  const absl::StatusOr<std::string> answer =
      QueryAgent(path, R"({"query":"attachments"})", kAttachmentsTimeout);
  if (!answer.ok()) return answer.status();
  return ParseAttachments(*answer);
}

}  // namespace faultline
