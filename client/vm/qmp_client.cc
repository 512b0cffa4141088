// SPDX-License-Identifier: Apache-2.0
#include "client/vm/qmp_client.h"

#include <absl/strings/str_cat.h>
#include <absl/time/clock.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace faultline {
namespace {

using nlohmann::json;

constexpr absl::string_view kHowToListen = "start QEMU with -qmp unix:PATH,server=on,wait=off";

absl::Status Refusal(absl::string_view command, const QmpMessage& error) {
  const std::string message = absl::StrCat(
      "QEMU refused \"", command, "\": ",
      error.description.empty() ? absl::string_view("it does not say why") : error.description);
  if (error.name == "CommandNotFound") return absl::UnimplementedError(message);
  if (error.name == "DeviceNotFound") return absl::NotFoundError(message);
  return absl::FailedPreconditionError(message);
}

uint64_t VersionOf(const json& greeting) {
  const json version =
      greeting.is_object() ? greeting.value("version", json::object()) : json::object();
  const json qemu = version.is_object() ? version.value("qemu", json::object()) : json::object();
  uint64_t number = 0;
  for (const char* part : {"major", "minor", "micro"}) {
    const auto it = qemu.is_object() ? qemu.find(part) : qemu.end();
    const bool valid = qemu.is_object() && it != qemu.end() && it->is_number_unsigned();
    number = number * 1000 + (valid ? std::min<uint64_t>(it->get<uint64_t>(), 999) : 0);
  }
  return number;
}

}  // namespace

absl::StatusOr<std::unique_ptr<QmpClient>> QmpClient::Connect(const std::string& path,
                                                              absl::Duration timeout) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    return absl::InvalidArgumentError(absl::StrCat("\"", path, "\" is no path of a socket: 1 to ",
                                                   sizeof address.sun_path - 1, " bytes"));
  }
  path.copy(address.sun_path, path.size());
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd || connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    return absl::UnavailableError(
        absl::StrCat("cannot reach QEMU at ", path, " (", strerror(errno), "); ", kHowToListen));
  }
  return Open(std::move(fd), path, timeout);
}

absl::StatusOr<std::unique_ptr<QmpClient>> QmpClient::Open(UniqueFd socket, std::string name,
                                                           absl::Duration timeout) {
  std::unique_ptr<QmpClient> client(new QmpClient(std::move(socket), std::move(name), timeout));
  if (absl::Status status = client->Negotiate(); !status.ok()) return status;
  return client;
}

QmpClient::QmpClient(UniqueFd socket, std::string name, absl::Duration timeout)
    : socket_(std::move(socket)),
      name_(std::move(name)),
      timeout_(timeout),
      splitter_(kMaxQmpMessageBytes) {}

absl::Status QmpClient::Negotiate() {
  const absl::StatusOr<QmpMessage> greeting = Receive("its greeting", absl::Now() + timeout_);
  if (absl::IsDeadlineExceeded(greeting.status())) {
    return absl::DeadlineExceededError(
        absl::StrCat("QEMU does not greet at ", name_, " within ", absl::FormatDuration(timeout_),
                     ": it takes one client at a time, so another may be connected; a further "
                     "-qmp gives it a further socket"));
  }
  if (!greeting.ok()) return greeting.status();
  if (greeting->kind != QmpMessage::Kind::kGreeting) {
    return Broken(absl::FailedPreconditionError(
        absl::StrCat("what listens at ", name_, " does not greet as QMP does; ", kHowToListen)));
  }
  version_ = VersionOf(greeting->value);
  return Execute("qmp_capabilities").status();
}

absl::StatusOr<json> QmpClient::Execute(absl::string_view command, const json& arguments) {
  return ExecuteWithDescriptor(command, arguments, -1);
}

absl::StatusOr<json> QmpClient::ExecuteWithDescriptor(absl::string_view command,
                                                      const json& arguments, int descriptor) {
  if (!broken_.ok()) return broken_;
  const absl::Time deadline = absl::Now() + timeout_;
  json request = {{"execute", std::string(command)}, {"id", ++last_id_}};
  if (!arguments.is_null()) request["arguments"] = arguments;
  const std::string text = request.dump(-1, ' ', true, json::error_handler_t::replace) + "\n";
  if (absl::Status status = Send(text, descriptor, deadline); !status.ok()) return status;
  const std::string awaited = absl::StrCat("an answer to \"", command, "\"");
  while (true) {
    absl::StatusOr<QmpMessage> message = Receive(awaited, deadline);
    if (!message.ok()) return message.status();
    switch (message->kind) {
      case QmpMessage::Kind::kEvent:
        Keep(*std::move(message));
        break;
      case QmpMessage::Kind::kReturn:
        // Others answer commands that nobody waits for any more.
        if (message->id == last_id_) return std::move(message->value);
        break;
      case QmpMessage::Kind::kError:
        // Where QEMU could not even read a command, its error has no id.
        if (message->id.value_or(last_id_) == last_id_) return Refusal(command, *message);
        break;
      case QmpMessage::Kind::kGreeting:
        return Broken(absl::FailedPreconditionError(
            absl::StrCat("what listens at ", name_, " greets twice, which QEMU does not")));
    }
  }
}

absl::StatusOr<QmpEvent> QmpClient::WaitForEvent(std::initializer_list<absl::string_view> names,
                                                 absl::Duration timeout) {
  const auto wanted = [&](const QmpEvent& event) {
    return std::find(names.begin(), names.end(), event.name) != names.end();
  };
  const absl::Time deadline = absl::Now() + timeout;
  while (true) {
    if (const auto it = std::find_if(events_.begin(), events_.end(), wanted); it != events_.end()) {
      QmpEvent event = std::move(*it);
      events_.erase(it);
      return event;
    }
    if (!broken_.ok()) return broken_;
    absl::StatusOr<QmpMessage> message =
        Receive(absl::StrCat("the event ", *names.begin()), deadline);
    if (!message.ok()) return message.status();
    if (message->kind == QmpMessage::Kind::kEvent) Keep(*std::move(message));
  }
}

void QmpClient::Keep(QmpMessage event) {
  if (events_.size() == kMaxEvents) events_.pop_front();
  events_.push_back({std::move(event.name), std::move(event.value), event.time});
}

absl::Status QmpClient::Broken(absl::Status status) {
  broken_ = std::move(status);
  return broken_;
}

absl::Status QmpClient::Send(absl::string_view text, int descriptor, absl::Time deadline) {
  while (!text.empty()) {
    iovec part{const_cast<char*>(text.data()), text.size()};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    if (descriptor >= 0) {
      message.msg_control = control;
      message.msg_controllen = sizeof control;
      cmsghdr* const header = CMSG_FIRSTHDR(&message);
      header->cmsg_level = SOL_SOCKET;
      header->cmsg_type = SCM_RIGHTS;
      header->cmsg_len = CMSG_LEN(sizeof(int));
      memcpy(CMSG_DATA(header), &descriptor, sizeof(int));
    }
    const ssize_t n = sendmsg(socket_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) {
      pollfd writable{socket_.get(), POLLOUT, 0};
      const int64_t left = absl::ToInt64Milliseconds(deadline - absl::Now());
      if (left > 0 && poll(&writable, 1, static_cast<int>(std::min<int64_t>(left, 1 << 30))) != 0) {
        continue;
      }
      // A part may be sent already, and the rest of it would be taken for the next command.
      return Broken(absl::DeadlineExceededError(
          absl::StrCat("QEMU at ", name_, " took no command within ",
                       absl::FormatDuration(timeout_), "; its main loop hangs")));
    }
    if (n < 0) {
      return Broken(absl::UnavailableError(
          absl::StrCat("QEMU at ", name_, " is gone (", strerror(errno), ")")));
    }
    descriptor = -1;  // went with the first byte
    text.remove_prefix(static_cast<size_t>(n));
  }
  return absl::OkStatus();
}

absl::StatusOr<QmpMessage> QmpClient::Receive(absl::string_view awaited, absl::Time deadline) {
  if (!broken_.ok()) return broken_;
  std::string text;
  while (true) {
    switch (splitter_.Next(&text)) {
      case JsonTextSplitter::Result::kText: {
        absl::StatusOr<QmpMessage> message = ParseQmpMessage(text);
        if (message.ok()) return message;
        return Broken(absl::FailedPreconditionError(absl::StrCat(
            "what listens at ", name_, " sent ", message.status().message(), "; ", kHowToListen)));
      }
      case JsonTextSplitter::Result::kNeedMore:
        if (absl::Status status = Read(awaited, deadline); !status.ok()) return status;
        break;
      case JsonTextSplitter::Result::kNotJson:
        return Broken(absl::FailedPreconditionError(
            absl::StrCat("what listens at ", name_, " does not speak QMP; ", kHowToListen)));
      case JsonTextSplitter::Result::kTooLong:
        return Broken(absl::FailedPreconditionError(
            absl::StrCat("what listens at ", name_, " sent a message of more than ",
                         kMaxQmpMessageBytes, " bytes, which no message of QMP has")));
    }
  }
}

absl::Status QmpClient::Read(absl::string_view awaited, absl::Time deadline) {
  while (true) {
    char bytes[65536];
    const ssize_t n = recv(socket_.get(), bytes, sizeof bytes, MSG_DONTWAIT);
    if (n > 0) {
      splitter_.Append(bytes, static_cast<size_t>(n));
      return absl::OkStatus();
    }
    if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
      return Broken(absl::UnavailableError(
          absl::StrCat("QEMU at ", name_, " closed the connection before ", awaited, " came (",
                       n == 0 ? "it has ended, or was told to" : strerror(errno), ")")));
    }
    pollfd readable{socket_.get(), POLLIN, 0};
    const int64_t left = absl::ToInt64Milliseconds(deadline - absl::Now());
    if (left <= 0) {
      return absl::DeadlineExceededError(absl::StrCat("QEMU at ", name_, " did not send ", awaited,
                                                      " in time; its main loop may hang"));
    }
    poll(&readable, 1, static_cast<int>(std::min<int64_t>(left, 1 << 30)));
  }
}

pid_t QmpClient::peer() const {
  ucred credentials{};
  socklen_t size = sizeof credentials;
  if (getsockopt(socket_.get(), SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) return 0;
  return credentials.pid;
}

}  // namespace faultline
