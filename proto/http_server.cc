// SPDX-License-Identifier: Apache-2.0
#include "proto/http_server.h"

#include <absl/strings/match.h>
#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_replace.h>
#include <arpa/inet.h>
#include <httplib.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <deque>
#include <optional>
#include <thread>
#include <utility>

#include "proto/host_port.h"
#include "proto/http_connection.h"
#include "proto/mutex.h"
#include "proto/urgency.h"

namespace faultline {
namespace {

// One that answers, and some that who asks or reads slowly leaves free: 40 who say nothing hold the
// next one up for three times HttpConnection::kMostRequestTime.
constexpr int kThreads = 16;
// Connections that wait for one of them; more wait in the kernel, which bounds them, too.
constexpr size_t kMostWaiting = 32;
constexpr auto kStartPause = std::chrono::milliseconds(1);

constexpr int kBadRequest = 400, kForbidden = 403, kNotFound = 404, kWrongMethod = 405,
              kInternalError = 500, kUnavailable = 503;

// What other hosts reach has to be allowed.
absl::Status CheckReach(const MetricsOptions& options, const sockaddr* address) {
  if (IsLoopback(address) || options.beyond_loopback) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "other hosts may reach that address, and nothing is asked of who reads there; choose "
      "127.0.0.1 or [::1], or allow it with --metrics-beyond-loopback");
}

std::string ToNumeric(const addrinfo& address) {
  char numeric[NI_MAXHOST] = "";
  getnameinfo(address.ai_addr, address.ai_addrlen, numeric, sizeof numeric, nullptr, 0,
              NI_NUMERICHOST);
  return numeric;
}

// Whether `header`, of a request's Host, names this machine by a name that nobody else can give it.
bool NamesLoopback(absl::string_view header, absl::string_view listened_on) {
  const std::optional<HostPort> parts = SplitHostPort(header);
  std::string host = parts ? parts->host : std::string(header);
  host = absl::StrReplaceAll(host, {{"[", ""}, {"]", ""}});
  in_addr four{};
  return host == "localhost" || host == listened_on || host == "::1" ||
         (inet_pton(AF_INET, host.c_str(), &four) == 1 && ntohl(four.s_addr) >> 24 == 127);
}

int CodeOf(const absl::Status& status) {
  if (absl::IsInvalidArgument(status)) return kBadRequest;
  if (absl::IsNotFound(status)) return kNotFound;
  if (absl::IsUnavailable(status)) return kUnavailable;
  return kInternalError;
}

void Refuse(int code, absl::string_view why, httplib::Response* response) {
  // The message has nothing of the request in it but what its parsers have quoted.
  std::string text;
  for (const char c : why) {
    if (c == '"' || c == '\\') text += '\\';
    text += static_cast<unsigned char>(c) < ' ' ? ' ' : c;
  }
  response->status = code;
  response->set_content(absl::StrCat("{\"error\":\"", text, "\"}\n"), kJsonType);
}

// Threads that answer, started by the thread that accepts. Accepting waits while too much does.
class AnsweringThreads final : public httplib::TaskQueue {
 public:
  AnsweringThreads() {
    for (int i = 0; i < kThreads; ++i) {
      threads_.emplace_back([this] { Run(); });
    }
  }

  void enqueue(std::function<void()> task) override {
    MutexLock lock(mu_);
    while (waiting_.size() >= kMostWaiting) changed_.Wait(mu_);
    waiting_.push_back(std::move(task));
    changed_.SignalAll();
  }

  void shutdown() override {
    {
      MutexLock lock(mu_);
      ended_ = true;
      changed_.SignalAll();
    }
    for (std::thread& thread : threads_) thread.join();
  }

 private:
  void Run() {
    for (;;) {
      std::function<void()> task;
      {
        MutexLock lock(mu_);
        while (waiting_.empty() && !ended_) changed_.Wait(mu_);
        if (waiting_.empty()) return;
        task = std::move(waiting_.front());
        waiting_.pop_front();
        changed_.SignalAll();
      }
      task();
    }
  }

  Mutex mu_;
  CondVar changed_;
  std::deque<std::function<void()>> waiting_ ABSL_GUARDED_BY(mu_);
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<std::thread> threads_;
};

// The routes, and who may ask.
class Router {
 public:
  // `loopback_host`: that which is listened on; none where other hosts may ask, too.
  Router(std::vector<HttpRoute> routes, std::optional<std::string> loopback_host)
      : routes_(std::move(routes)),
        locks_(routes_.size()),
        loopback_host_(std::move(loopback_host)) {}

  void Answer(const httplib::Request& request, httplib::Response* response) {
    const std::string host = request.get_header_value("Host");
    if (loopback_host_ && !host.empty() && !NamesLoopback(host, *loopback_host_)) {
      return Refuse(kForbidden,
                    "requests from this machine only, for localhost or the address that "
                    "--metrics names",
                    response);
    }
    if (request.method != "GET" && request.method != "HEAD") {
      response->set_header("Allow", "GET, HEAD");
      return Refuse(kWrongMethod, "there is nothing to change here: GET and HEAD only", response);
    }
    for (size_t i = 0; i < routes_.size(); ++i) {
      const std::string& path = routes_[i].path;
      const bool prefix = path.size() > 1 && path.back() == '/';
      if (prefix ? !absl::StartsWith(request.path, path) : request.path != path) continue;
      HttpRequest asked{request.path.substr(path.size()), {}};
      for (const auto& [name, value] : request.params) asked.query.emplace(name, value);
      MutexLock lock(locks_[i]);
      const absl::StatusOr<HttpAnswer> answer = routes_[i].answer(asked);
      if (!answer.ok()) return Refuse(CodeOf(answer.status()), answer.status().message(), response);
      response->status = 200;
      return response->set_content(answer->body, answer->type);
    }
    Refuse(kNotFound, "there is no such page", response);
  }

 private:
  const std::vector<HttpRoute> routes_;
  std::vector<Mutex> locks_;  // of each route
  const std::optional<std::string> loopback_host_;
};

class LibraryServer final : public HttpServer, private httplib::Server {
 public:
  LibraryServer(std::vector<HttpRoute> routes, std::optional<std::string> loopback_host)
      : router_(std::move(routes), std::move(loopback_host)), stop_(eventfd(0, EFD_CLOEXEC)) {
    new_task_queue = [] { return new AnsweringThreads; };
    // Its default would let another process listen on the same port.
    set_socket_options([](int fd) {
      const int yes = 1;
      setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    });
    set_default_headers({
        {"Content-Security-Policy",
         "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
         "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"},
        {"X-Content-Type-Options", "nosniff"},
        {"Referrer-Policy", "no-referrer"},
        {"Cross-Origin-Resource-Policy", "same-origin"},
        {"Cache-Control", "no-store"},
    });
    set_pre_routing_handler([this](const httplib::Request& request, httplib::Response& response) {
      router_.Answer(request, &response);
      return HandlerResponse::Handled;
    });
  }

  ~LibraryServer() override {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = write(stop_, &one, sizeof one);
    if (accepting_.joinable()) {
      stop();
      accepting_.join();
    }
    close(stop_);
  }

  // False where it cannot listen.
  bool Listen(const std::string& host, int port) {
    if (port == 0) {
      port = bind_to_any_port(host);
      if (port <= 0) return false;
    } else if (!bind_to_port(host, port)) {
      return false;
    }
    url_ =
        absl::StrCat("http://", absl::StrContains(host, ':') ? absl::StrCat("[", host, "]") : host,
                     ":", port, "/");
    accepting_ = std::thread([this] {
      SetUrgency(Urgency::kBulk);
      listen_after_bind();
      ended_ = true;
    });
    // What is not running cannot be stopped.
    while (!is_running() && !ended_) std::this_thread::sleep_for(kStartPause);
    return true;
  }

  const std::string& url() const override { return url_; }

 private:
  bool process_and_close_socket(socket_t fd) override {
    bool closed = false;
    {
      HttpConnection connection(fd, stop_);
      process_request(connection, /*close_connection=*/true, closed, [](httplib::Request& request) {
        // Parts of an answer, and compressed ones, would cost more than they are worth.
        request.ranges.clear();
        request.headers.erase("Range");
        request.headers.erase("Accept-Encoding");
      });
    }
    ::shutdown(fd, SHUT_WR);
    close(fd);
    return true;
  }

  Router router_;
  const int stop_;
  std::string url_;
  std::atomic<bool> ended_ = false;
  std::thread accepting_;
};

}  // namespace

absl::StatusOr<uint64_t> HttpRequest::Number(const std::string& name, uint64_t otherwise,
                                             uint64_t least, uint64_t most) const {
  const auto found = query.find(name);
  if (found == query.end()) return otherwise;
  uint64_t number = 0;
  if (absl::SimpleAtoi(found->second, &number) && number >= least && number <= most) return number;
  return absl::InvalidArgumentError(
      absl::StrCat("\"", name, "\" has to be a number from ", least, " to ", most));
}

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const MetricsOptions& options,
                                                              std::vector<HttpRoute> routes) {
  const std::optional<HostPort> parts = SplitHostPort(options.address);
  int port = 0;
  if (!parts || !absl::SimpleAtoi(parts->port, &port)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--metrics=", options.address,
                     ": write host:port (127.0.0.1:9090, [::1]:9090, port 0 for a free one)"));
  }
  const absl::StatusOr<Addresses> addresses = AddressesOf(*parts);
  const absl::Status status =
      addresses.ok() ? CheckReach(options, (*addresses)->ai_addr) : addresses.status();
  if (!status.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--metrics=", options.address, ": ", status.message()));
  }
  std::optional<std::string> loopback_host;
  if (IsLoopback((*addresses)->ai_addr)) loopback_host = parts->host;
  auto server = std::make_unique<LibraryServer>(std::move(routes), std::move(loopback_host));
  if (!server->Listen(ToNumeric(**addresses), port)) {
    return absl::UnavailableError(
        absl::StrCat("--metrics=", options.address,
                     ": cannot listen there: another program does, this user may not, or no "
                     "interface of this machine has that address; choose another"));
  }
  return server;
}

}  // namespace faultline
