// SPDX-License-Identifier: Apache-2.0
#include "proto/http_server.h"

#include <absl/strings/str_cat.h>
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <prometheus/metric_family.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "proto/page_files.h"

namespace faultline {
namespace {

std::vector<prometheus::MetricFamily> OneFamily() {
  prometheus::MetricFamily family;
  family.name = "test_answer";
  family.help = "The answer.";
  family.type = prometheus::MetricType::Gauge;
  family.metric.emplace_back().gauge.value = 42;
  return {family};
}

std::vector<HttpRoute> TestRoutes() {
  return {
      MetricsRoute(&OneFamily),
      FileRoute("/", kHtmlType, "<p>page"),
      {"/things/",
       [](const HttpRequest& request) -> absl::StatusOr<HttpAnswer> {
         if (request.rest == "none") return absl::NotFoundError("there is no \"thing\"\n");
         const absl::StatusOr<uint64_t> n = request.Number("n", 7, 1, 9);
         if (!n.ok()) return n.status();
         return HttpAnswer{kJsonType, absl::StrCat("[\"", request.rest, "\",", *n, "]")};
       }},
  };
}

// A connection to 127.0.0.1.
class Connection {
 public:
  explicit Connection(int port) : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  }
  ~Connection() { close(fd_); }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  void Send(const std::string& text) {
    // What is refused early may not be taken any more.
    static_cast<void>(send(fd_, text.data(), text.size(), MSG_NOSIGNAL));
  }
  void EndSending() { shutdown(fd_, SHUT_WR); }
  std::string ReadAll() {
    std::string answer;
    char bytes[4096];
    for (ssize_t n; (n = read(fd_, bytes, sizeof bytes)) > 0;) {
      answer.append(bytes, static_cast<size_t>(n));
    }
    return answer;
  }

 private:
  const int fd_;
};

std::string Ask(int port, const std::string& request) {
  Connection connection(port);
  connection.Send(request);
  return connection.ReadAll();
}
// What GET of `path` says.
std::string Get(int port, const std::string& path, const std::string& headers = "") {
  return Ask(port, absl::StrCat("GET ", path, " HTTP/1.1\r\nHost: localhost\r\n", headers, "\r\n"));
}
bool HasCode(const std::string& answer, int code) {
  return answer.find(absl::StrCat("HTTP/1.1 ", code, " ")) == 0;
}
std::string BodyOf(const std::string& answer) {
  const size_t end = answer.find("\r\n\r\n");
  return end == std::string::npos ? "" : answer.substr(end + 4);
}

int PortOf(const std::string& url) { return std::atoi(url.substr(url.rfind(':') + 1).c_str()); }

class HttpServerTest : public testing::Test {
 protected:
  void SetUp() override {
    auto server = HttpServer::Start({.address = "127.0.0.1:0"}, TestRoutes());
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    port_ = PortOf(server_->url());
  }
  // Ends it, which has to be at once.
  void End() {
    const auto begun = std::chrono::steady_clock::now();
    server_.reset();
    EXPECT_LT(std::chrono::steady_clock::now() - begun, std::chrono::seconds(1));
  }

  std::unique_ptr<HttpServer> server_;
  int port_ = 0;
};

TEST_F(HttpServerTest, AnswersByItsRoutes) {
  EXPECT_EQ(server_->url(), absl::StrCat("http://127.0.0.1:", port_, "/"));
  const std::string page = Get(port_, "/");
  EXPECT_TRUE(HasCode(page, 200)) << page;
  EXPECT_EQ(BodyOf(page), "<p>page");
  EXPECT_NE(page.find("Content-Security-Policy: default-src 'none'; script-src 'self'"),
            std::string::npos)
      << page;
  EXPECT_EQ(page.find("Access-Control-Allow-Origin"), std::string::npos);
  EXPECT_NE(Get(port_, "/metrics").find("\ntest_answer 42\n"), std::string::npos);
  EXPECT_EQ(BodyOf(Get(port_, "/things/a/b?n=3&m=4")), R"(["a/b",3])");
  EXPECT_EQ(BodyOf(Get(port_, "/things/")), R"(["",7])");
  for (const char* path : {"/things", "/etc/passwd", "/metrics/", "/../metrics"}) {
    EXPECT_TRUE(HasCode(Get(port_, path), 404)) << path;
  }
  End();
}

TEST_F(HttpServerTest, SaysWhatIsWrongWithARequest) {
  const std::string missing = Get(port_, "/things/none");
  EXPECT_TRUE(HasCode(missing, 404)) << missing;
  EXPECT_EQ(BodyOf(missing), "{\"error\":\"there is no \\\"thing\\\" \"}\n");
  for (const char* n : {"0", "10", "-1", "x", "", "99999999999999999999"}) {
    const std::string answer = Get(port_, absl::StrCat("/things/?n=", n));
    EXPECT_TRUE(HasCode(answer, 400)) << answer;
    EXPECT_NE(answer.find("has to be a number from 1 to 9"), std::string::npos) << answer;
  }
  for (const char* method : {"POST", "PUT", "DELETE", "PATCH", "OPTIONS"}) {
    const std::string answer =
        Ask(port_,
            absl::StrCat(method, " / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx"));
    EXPECT_TRUE(HasCode(answer, 405)) << answer;
    EXPECT_NE(answer.find("Allow: GET, HEAD"), std::string::npos) << answer;
  }
  const std::string head = Ask(port_, "HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n");
  EXPECT_TRUE(HasCode(head, 200)) << head;
  EXPECT_EQ(BodyOf(head), "");
}

// A name of another site that its DNS server says is 127.0.0.1.
TEST_F(HttpServerTest, AnswersNobodyWhoCallsItByAnotherName) {
  const auto ask = [this](const std::string& host) {
    return Ask(port_, absl::StrCat("GET /metrics HTTP/1.1\r\nHost: ", host, "\r\n\r\n"));
  };
  for (const char* host : {"rebound.example", "rebound.example:80", "localhost.rebound.example",
                           "10.0.0.1", "127.0.0.1.rebound.example:1"}) {
    EXPECT_TRUE(HasCode(ask(host), 403)) << host;
  }
  for (const char* host : {"localhost", "localhost:1", "127.0.0.1:9", "127.1.2.3", "[::1]:8"}) {
    EXPECT_TRUE(HasCode(ask(host), 200)) << host;
  }
  EXPECT_TRUE(HasCode(Ask(port_, "GET /metrics HTTP/1.0\r\n\r\n"), 200));
}

TEST_F(HttpServerTest, TakesNoHarmFromGarbage) {
  for (const std::string& garbage :
       {std::string("\r\n\r\n"), std::string("GET\r\n\r\n"), std::string(70'000, 'a'),
        "GET /" + std::string(10'000, 'x') + " HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\n" + std::string(20'000, 'h'), std::string(100, '\0'),
        std::string("GET /%zz%00%ff HTTP/1.1\r\n\r\n"),
        std::string("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n")}) {
    Connection connection(port_);
    connection.Send(garbage);
    connection.EndSending();
    const std::string answer = connection.ReadAll();
    EXPECT_FALSE(HasCode(answer, 200)) << garbage.substr(0, 100);
  }
  // Many parts of an answer, and compressed ones, are not made.
  std::string ranges = "Range: bytes=0-1";
  while (ranges.size() < 8000) ranges += ",0-1";
  const std::string answer = Get(port_, "/", ranges + "\r\nAccept-Encoding: gzip, br\r\n");
  EXPECT_TRUE(HasCode(answer, 200)) << answer;
  EXPECT_EQ(BodyOf(answer), "<p>page");
}

TEST_F(HttpServerTest, WhoSaysNothingHoldsUpNobodyForLong) {
  std::vector<std::unique_ptr<Connection>> silent;
  for (int i = 0; i < 3; ++i) {
    silent.push_back(std::make_unique<Connection>(port_));
    silent.back()->Send("GET / HTTP/1.1\r\nX-Slow: ");
  }
  EXPECT_EQ(BodyOf(Get(port_, "/")), "<p>page");
  // Of more than there are threads for, the end is waited for.
  for (int i = 0; i < 30; ++i) silent.push_back(std::make_unique<Connection>(port_));
  End();
}

TEST_F(HttpServerTest, ASlowRequestEndsAsAWhole) {
  Connection slow(port_);
  const auto begun = std::chrono::steady_clock::now();
  std::atomic<bool> ended = false;
  std::thread sender([&] {
    slow.Send("GET / HTTP/1.1\r\n");
    while (!ended) {
      slow.Send("A: b\r\n");
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
  });
  slow.ReadAll();
  ended = true;
  sender.join();
  const auto took = std::chrono::steady_clock::now() - begun;
  EXPECT_GT(took, std::chrono::milliseconds(400));
  EXPECT_LT(took, std::chrono::seconds(4));
}

// A scrape ends after ten seconds.
TEST_F(HttpServerTest, FortyWhoSayNothingDoNotHoldUpAScrape) {
  std::vector<std::unique_ptr<Connection>> silent;
  for (int i = 0; i < 40; ++i) silent.push_back(std::make_unique<Connection>(port_));
  const auto begun = std::chrono::steady_clock::now();
  EXPECT_NE(Get(port_, "/metrics").find("\ntest_answer 42\n"), std::string::npos);
  EXPECT_LT(std::chrono::steady_clock::now() - begun, std::chrono::seconds(10));
}

TEST(HttpServer, AddressesThatOthersReachHaveToBeAllowed) {
  for (const char* address : {"0.0.0.0:0", "[::]:0"}) {
    const auto refused = HttpServer::Start({.address = address}, TestRoutes());
    EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument) << address;
    EXPECT_NE(refused.status().message().find("--metrics-beyond-loopback"), std::string::npos)
        << refused.status();
  }
  EXPECT_TRUE(HttpServer::Start({.address = "localhost:0"}, TestRoutes()).ok());
  const auto allowed =
      HttpServer::Start({.address = "0.0.0.0:0", .beyond_loopback = true}, TestRoutes());
  ASSERT_TRUE(allowed.ok()) << allowed.status();
  // Whoever reaches it may have any name for it.
  EXPECT_TRUE(HasCode(
      Ask(PortOf((*allowed)->url()), "GET /metrics HTTP/1.1\r\nHost: agent.example\r\n\r\n"), 200));
}

TEST(HttpServer, SaysWhatIsWrongWithAnAddress) {
  for (const char* address : {"9090", "localhost", "unix:/tmp/metrics", "no.such.host.invalid:1"}) {
    const auto server = HttpServer::Start({.address = address}, TestRoutes());
    EXPECT_EQ(server.status().code(), absl::StatusCode::kInvalidArgument) << address;
    EXPECT_NE(server.status().message().find(address), std::string::npos) << server.status();
  }
  const auto first = HttpServer::Start({.address = "127.0.0.1:0"}, TestRoutes());
  ASSERT_TRUE(first.ok()) << first.status();
  const std::string taken = absl::StrCat("127.0.0.1:", PortOf((*first)->url()));
  const auto second = HttpServer::Start({.address = taken}, TestRoutes());
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(second.status().message().find(taken), std::string::npos) << second.status();
}

}  // namespace
}  // namespace faultline
