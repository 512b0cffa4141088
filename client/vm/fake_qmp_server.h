// SPDX-License-Identifier: Apache-2.0
//
// FakeQmpServer: the other end of a QmpClient, for tests. Thread-safe.
#ifndef FAULTLINE_CLIENT_VM_FAKE_QMP_SERVER_H_
#define FAULTLINE_CLIENT_VM_FAKE_QMP_SERVER_H_

#include <absl/strings/str_cat.h>
#include <sys/socket.h>

#include <cstring>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include <nlohmann/json.hpp>

#include "client/attach/json_text_splitter.h"
#include "client/unique_fd.h"

namespace faultline {

// Serves one connection, on a thread of its own, until the client goes or the script ends it.
class FakeQmpServer {
 public:
  // What is sent for a command, in raw bytes; none: the connection is closed. `descriptor` came
  // with the command, or is empty.
  using Script =
      std::function<std::optional<std::string>(const nlohmann::json& command, UniqueFd descriptor)>;

  static constexpr char kGreeting[] =
      R"({"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""},)"
      R"( "capabilities": ["oob"]}})"
      "\r\n";

  // `piece`: how many bytes are sent at a time.
  explicit FakeQmpServer(Script script, std::string greeting = kGreeting, size_t piece = 1 << 20)
      : script_(std::move(script)), piece_(piece) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) abort();
    client_.reset(ends[0]);
    server_.reset(ends[1]);
    thread_ = std::thread([this, greeting = std::move(greeting)] { Serve(greeting); });
  }
  ~FakeQmpServer() {
    shutdown(server_.get(), SHUT_RDWR);
    thread_.join();
  }

  // The client's end of the connection; once.
  UniqueFd TakeClientEnd() { return std::move(client_); }

  // {"return": VALUE} for `command`.
  static std::string Return(const nlohmann::json& command,
                            const nlohmann::json& value = nlohmann::json::object()) {
    return nlohmann::json{{"return", value}, {"id", command["id"]}}.dump() + "\r\n";
  }
  static std::string Error(const nlohmann::json& command, const std::string& error_class,
                           const std::string& description) {
    return nlohmann::json{{"error", {{"class", error_class}, {"desc", description}}},
                          {"id", command["id"]}}
               .dump() +
           "\r\n";
  }
  static std::string Event(const std::string& name,
                           const nlohmann::json& data = nlohmann::json::object()) {
    return nlohmann::json{{"event", name},
                          {"data", data},
                          {"timestamp", {{"seconds", 1}, {"microseconds", 2}}}}
               .dump() +
           "\r\n";
  }

 private:
  void Serve(const std::string& greeting) {
    if (!Send(greeting)) return;
    JsonTextSplitter splitter(1 << 20);
    UniqueFd descriptor;
    while (Receive(&splitter, &descriptor)) {
      std::string text;
      while (splitter.Next(&text) == JsonTextSplitter::Result::kText) {
        const std::optional<std::string> answer =
            script_(nlohmann::json::parse(text), std::move(descriptor));
        if (!answer) {
          shutdown(server_.get(), SHUT_RDWR);
          return;
        }
        if (!Send(*answer)) return;
      }
    }
  }

  bool Send(const std::string& text) {
    for (size_t at = 0; at < text.size(); at += piece_) {
      const std::string part = text.substr(at, piece_);
      for (size_t sent = 0; sent < part.size();) {
        const ssize_t n = send(server_.get(), part.data() + sent, part.size() - sent, MSG_NOSIGNAL);
        if (n <= 0) return false;
        sent += static_cast<size_t>(n);
      }
    }
    return true;
  }

  bool Receive(JsonTextSplitter* splitter, UniqueFd* descriptor) {
    char bytes[4096];
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
    iovec part{bytes, sizeof bytes};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    const ssize_t n = recvmsg(server_.get(), &message, MSG_CMSG_CLOEXEC);
    if (n <= 0) return false;
    if (const cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr) {
      int fd;
      memcpy(&fd, CMSG_DATA(header), sizeof fd);
      descriptor->reset(fd);
    }
    splitter->Append(bytes, static_cast<size_t>(n));
    return true;
  }

  const Script script_;
  const size_t piece_;
  UniqueFd client_, server_;
  std::thread thread_;  // last: uses what stands above
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_VM_FAKE_QMP_SERVER_H_
