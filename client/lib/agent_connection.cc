// SPDX-License-Identifier: Apache-2.0
#include "client/lib/agent_connection.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include <algorithm>
#include <thread>

#include <nlohmann/json.hpp>

namespace faultline {
namespace {

using nlohmann::json;

// Of one answer; those to what this library asks are some hundred bytes.
constexpr size_t kMaxAnswerBytes = size_t{64} << 10;

constexpr auto kReconnectInterval = std::chrono::milliseconds(10);

timeval ToTimeval(std::chrono::milliseconds time) {
  return {static_cast<time_t>(time.count() / 1000),
          static_cast<suseconds_t>(time.count() % 1000 * 1000)};
}

}  // namespace

bool IsAgentLoss(const Failure& failure) {
  return failure.code == ECONNRESET || failure.code == EPIPE || failure.code == ECONNREFUSED ||
         failure.code == ENOENT;
}

AgentConnection::AgentConnection(std::chrono::milliseconds timeout)
    : timeout_(timeout), splitter_(kMaxAnswerBytes) {}

Failure AgentConnection::Connect(const std::string& path) {
  path_ = path;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    return {EINVAL, "the path of the agent's socket has " + std::to_string(path.size()) +
                        " bytes; 1 to " + std::to_string(sizeof address.sun_path - 1) +
                        " are possible"};
  }
  path.copy(address.sun_path, path.size());
  socket_.reset(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket_) return SystemFailure("cannot make a socket");
  // Bounds connect(), which waits while the agent's queue is full, and sendmsg().
  const timeval timeout = ToTimeval(timeout_);
  setsockopt(socket_.get(), SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
  int result;
  do {
    result = connect(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  } while (result != 0 && errno == EINTR);
  if (result == 0) return Success();
  if (errno == EAGAIN) {
    return {ETIMEDOUT, "the agent at " + path + " accepts no connection; is it overloaded?"};
  }
  const bool nobody = errno == ENOENT || errno == ECONNREFUSED;
  Failure failure = SystemFailure("cannot connect to the agent at " + path);
  if (nobody) failure.message += "; start faultline-agent with --socket=" + path;
  return failure;
}

Failure AgentConnection::Ask(const json& request, const std::vector<int>& descriptors,
                             json* answer) {
  Failure failure = Send(request.dump(-1, ' ', true, json::error_handler_t::replace), descriptors);
  if (!failure.ok()) return failure;
  std::string text;
  if (failure = ReceiveText(&text); !failure.ok()) return failure;
  *answer = json::parse(text, nullptr, /*allow_exceptions=*/false);
  const json none;
  const json& status =
      answer->is_object() && answer->contains("status") ? (*answer)["status"] : none;
  if (status == "ok") return Success();
  if (status == "error" && answer->contains("message") && (*answer)["message"].is_string()) {
    return {EREMOTEIO,
            "the agent at " + path_ + " says: " + (*answer)["message"].get<std::string>()};
  }
  return {EPROTO, "the agent at " + path_ + " gave an answer that is none: " + text.substr(0, 100)};
}

Failure AgentConnection::Detach(uint64_t id, std::chrono::milliseconds patience) {
  json answer;
  Failure failure = Ask({{"detach", true}}, {}, &answer);
  if (failure.ok() || failure.code == EREMOTEIO) return failure;
  const auto deadline = std::chrono::steady_clock::now() + patience;
  while (true) {
    AgentConnection successor(timeout_);
    failure = successor.Connect(path_);
    if (failure.ok()) {
      failure = successor.Ask({{"detach", true}, {"attachment", id}}, {}, &answer);
    }
    if (failure.ok() || std::chrono::steady_clock::now() >= deadline) return failure;
    std::this_thread::sleep_for(kReconnectInterval);
  }
}

Failure AgentConnection::Send(const std::string& text, const std::vector<int>& descriptors) {
  size_t sent = 0;
  while (sent < text.size()) {
    iovec part{const_cast<char*>(text.data()) + sent, text.size() - sent};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    std::vector<char> control(CMSG_SPACE(descriptors.size() * sizeof(int)));
    if (sent == 0 && !descriptors.empty()) {
      message.msg_control = control.data();
      message.msg_controllen = control.size();
      cmsghdr* header = CMSG_FIRSTHDR(&message);
      header->cmsg_level = SOL_SOCKET;
      header->cmsg_type = SCM_RIGHTS;
      header->cmsg_len = CMSG_LEN(descriptors.size() * sizeof(int));
      memcpy(CMSG_DATA(header), descriptors.data(), descriptors.size() * sizeof(int));
    }
    const ssize_t n = sendmsg(socket_.get(), &message, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) {
      return {ETIMEDOUT, "the agent at " + path_ + " did not take a request in time"};
    }
    if (n < 0) return SystemFailure("cannot send to the agent at " + path_);
    sent += static_cast<size_t>(n);
  }
  return Success();
}

Failure AgentConnection::ReceiveText(std::string* text) {
  const auto deadline = std::chrono::steady_clock::now() + timeout_;
  while (true) {
    const JsonTextSplitter::Result result = splitter_.Next(text);
    if (result == JsonTextSplitter::Result::kText) return Success();
    if (result != JsonTextSplitter::Result::kNeedMore) {
      return {EPROTO, "the agent at " + path_ + " sent what is no answer; is it faultline-agent?"};
    }
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    pollfd readable{socket_.get(), POLLIN, 0};
    const int ready =
        poll(&readable, 1, static_cast<int>(std::clamp<int64_t>(left.count(), 0, 1 << 30)));
    if (ready < 0 && errno == EINTR) continue;
    if (ready < 0) return SystemFailure("cannot wait for the agent at " + path_);
    if (ready == 0) {
      return {ETIMEDOUT, "the agent at " + path_ + " did not answer within " +
                             std::to_string(timeout_.count()) + " ms"};
    }
    char bytes[4096];
    const ssize_t n = recv(socket_.get(), bytes, sizeof bytes, MSG_DONTWAIT);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (n < 0) return SystemFailure("cannot read from the agent at " + path_);
    if (n == 0) {
      return {ECONNRESET, "the agent at " + path_ + " closed the connection; its log says why"};
    }
    splitter_.Append(bytes, static_cast<size_t>(n));
  }
}

}  // namespace faultline
