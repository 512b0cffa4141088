// SPDX-License-Identifier: Apache-2.0
#include "client/cli/agent_query.h"

#include <absl/strings/str_cat.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <thread>

#include "client/unique_fd.h"

namespace faultline {
namespace {

constexpr absl::Duration kLong = absl::Seconds(60);

class QueryAgentTest : public testing::Test {
 protected:
  QueryAgentTest() {
    std::string path = absl::StrCat(testing::TempDir(), "/query_XXXXXX");
    directory_ = mkdtemp(path.data());
    path_ = absl::StrCat(directory_, "/s");
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    memcpy(address.sun_path, path_.data(), path_.size());
    listener_ = UniqueFd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    EXPECT_EQ(bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(listen(listener_.get(), 1), 0);
  }
  ~QueryAgentTest() override {
    if (agent_.joinable()) agent_.join();
    std::filesystem::remove_all(directory_);
  }

  // Takes one query and answers it in these pieces; then keeps the connection or closes it.
  void Serve(std::vector<std::string> pieces, bool keep) {
    agent_ = std::thread([this, pieces = std::move(pieces), keep] {
      UniqueFd fd(accept(listener_.get(), nullptr, nullptr));
      char buffer[256];
      const ssize_t n = recv(fd.get(), buffer, sizeof buffer, 0);
      query_.assign(buffer, n > 0 ? static_cast<size_t>(n) : 0);
      for (const std::string& piece : pieces) {
        EXPECT_EQ(send(fd.get(), piece.data(), piece.size(), MSG_NOSIGNAL),
                  static_cast<ssize_t>(piece.size()));
      }
      if (keep) recv(fd.get(), buffer, sizeof buffer, 0);  // returns when the peer closes
    });
  }

  std::string directory_;
  std::string path_;
  UniqueFd listener_;
  std::string query_;
  std::thread agent_;
};

TEST_F(QueryAgentTest, AnswerEndsWithItsJsonTextThoughTheConnectionStaysOpen) {
  Serve({R"({"a":{)", R"("b":1})", R"(})"}, /*keep=*/true);
  const auto answer = QueryAgent(path_, R"({"query":"attachments"})", kLong);
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(*answer, R"({"a":{"b":1}})");
  agent_.join();
  EXPECT_EQ(query_, R"({"query":"attachments"})");
}

TEST_F(QueryAgentTest, AnswerMayAlsoEndWithTheConnection) {
  Serve({"no json"}, /*keep=*/false);
  EXPECT_EQ(*QueryAgent(path_, "{}", kLong), "no json");
}

TEST_F(QueryAgentTest, ClosedConnectionIsToldFromAnAnswer) {
  Serve({}, /*keep=*/false);
  EXPECT_EQ(QueryAgent(path_, "{}", kLong).status().message(),
            absl::StrCat("cannot reach an agent at ", path_,
                         " (it closed the connection without an answer); check that "
                         "faultline-agent runs with --socket=",
                         path_));
}

TEST_F(QueryAgentTest, SilentAgentEndsTheQueryInTime) {
  Serve({}, /*keep=*/true);
  const auto answer = QueryAgent(path_, "{}", absl::Milliseconds(20));
  EXPECT_EQ(answer.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(answer.status().message().find("(no answer in time)"), absl::string_view::npos);
}

TEST_F(QueryAgentTest, MissingAgentIsNamedWithWhatToCheck) {
  const std::string path = absl::StrCat(directory_, "/none");
  EXPECT_EQ(QueryAgent(path, "{}", kLong).status().message(),
            absl::StrCat("cannot reach an agent at ", path,
                         " (No such file or directory); check that faultline-agent runs with "
                         "--socket=",
                         path));
  EXPECT_EQ(QueryAgent(std::string(200, 'x'), "{}", kLong).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace faultline
