// SPDX-License-Identifier: Apache-2.0
#include "client/vm/qmp_client.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <string>

#include "client/bench/child_process.h"
#include "client/vm/fake_qmp_server.h"
#include "client/vm/vm_testing.h"

namespace faultline {
namespace {

using nlohmann::json;

std::optional<std::string> Agree(const json& command, UniqueFd) {
  return FakeQmpServer::Return(command);
}

absl::StatusOr<std::unique_ptr<QmpClient>> OpenClient(FakeQmpServer& server) {
  return QmpClient::Open(server.TakeClientEnd(), "fake.sock", kLong);
}

void ExpectMessage(const absl::Status& status, absl::StatusCode code, const std::string& part) {
  EXPECT_EQ(status.code(), code) << status;
  EXPECT_NE(status.message().find(part), absl::string_view::npos) << status;
}

TEST(QmpClient, GreetsAndEntersCommandModeBeforeAnyCommand) {
  std::vector<std::string> commands;
  {
    FakeQmpServer server([&](const json& command, UniqueFd) {
      commands.push_back(command["execute"]);
      return FakeQmpServer::Return(command, {{"running", true}});
    });
    auto client = OpenClient(server);
    ASSERT_TRUE(client.ok()) << client.status();
    EXPECT_EQ((*client)->version(), 7'002'022u);
    auto answer = (*client)->Execute("query-status");
    ASSERT_TRUE(answer.ok()) << answer.status();
    EXPECT_EQ((*answer)["running"], true);
  }
  EXPECT_EQ(commands, (std::vector<std::string>{"qmp_capabilities", "query-status"}));
}

TEST(QmpClient, PassesArgumentsAndADescriptor) {
  bool same = false;
  const UniqueFd file(memfd_create("state", MFD_CLOEXEC));
  struct stat expected {};
  ASSERT_EQ(fstat(file.get(), &expected), 0);
  {
    FakeQmpServer server([&](const json& command, UniqueFd descriptor) {
      if (command["execute"] == "getfd") {
        struct stat found {};
        same = fstat(descriptor.get(), &found) == 0 && found.st_ino == expected.st_ino &&
               command["arguments"]["fdname"] == "state";
      }
      return FakeQmpServer::Return(command);
    });
    auto client = OpenClient(server);
    ASSERT_TRUE(client.ok()) << client.status();
    EXPECT_TRUE((*client)->ExecuteWithDescriptor("getfd", {{"fdname", "state"}}, file.get()).ok());
  }
  EXPECT_TRUE(same);
}

// The answers come a byte at a time, with events before and between them.
TEST(QmpClient, PutsSplitMessagesTogetherAndKeepsEvents) {
  FakeQmpServer server(
      [](const json& command, UniqueFd) {
        return FakeQmpServer::Event("STOP", {{"n", command["id"]}}) +
               FakeQmpServer::Event("MIGRATION", {{"status", "active"}}) +
               FakeQmpServer::Return(command, "a \"quoted\" } brace");
      },
      FakeQmpServer::kGreeting, /*piece=*/1);
  auto client = OpenClient(server);
  ASSERT_TRUE(client.ok()) << client.status();
  auto answer = (*client)->Execute("anything");
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(*answer, "a \"quoted\" } brace");
  auto event = (*client)->WaitForEvent({"MIGRATION"}, kLong);
  ASSERT_TRUE(event.ok()) << event.status();
  EXPECT_EQ(event->data["status"], "active");
  for (const int n : {1, 2}) {
    event = (*client)->WaitForEvent({"RESUME", "STOP"}, kLong);
    ASSERT_TRUE(event.ok()) << event.status();
    EXPECT_EQ(event->name, "STOP");
    EXPECT_EQ(event->data["n"], n);
  }
  ExpectMessage((*client)->WaitForEvent({"STOP"}, kShort).status(),
                absl::StatusCode::kDeadlineExceeded, "the event STOP");
}

TEST(QmpClient, TakesAHugeAnswerAndRefusesAnEndlessOne) {
  FakeQmpServer server([](const json& command, UniqueFd) {
    const size_t size = command["execute"] == "endless" ? kMaxQmpMessageBytes : size_t{4} << 20;
    return FakeQmpServer::Return(
        command, command["execute"] == "qmp_capabilities" ? "" : std::string(size, 'x'));
  });
  auto client = OpenClient(server);
  ASSERT_TRUE(client.ok()) << client.status();
  auto answer = (*client)->Execute("huge");
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->get<std::string>().size(), size_t{4} << 20);
  ExpectMessage((*client)->Execute("endless").status(), absl::StatusCode::kFailedPrecondition,
                "message of more than");
}

TEST(QmpClient, SaysInQemusWordsWhyItRefuses) {
  FakeQmpServer server([](const json& command, UniqueFd) -> std::optional<std::string> {
    if (command["execute"] == "nonsense") {
      return FakeQmpServer::Error(command, "CommandNotFound", "The command nonsense has no sense");
    }
    if (command["execute"] == "migrate") {
      return FakeQmpServer::Error(command, "GenericError", "There's a migration in progress");
    }
    return FakeQmpServer::Return(command);
  });
  auto client = OpenClient(server);
  ASSERT_TRUE(client.ok()) << client.status();
  ExpectMessage((*client)->Execute("nonsense").status(), absl::StatusCode::kUnimplemented,
                "QEMU refused \"nonsense\": The command nonsense has no sense");
  ExpectMessage((*client)->Execute("migrate").status(), absl::StatusCode::kFailedPrecondition,
                "There's a migration in progress");
  EXPECT_TRUE((*client)->Execute("stop").ok());
}

TEST(QmpClient, NoticesThatQemuEnds) {
  FakeQmpServer server([](const json& command, UniqueFd) -> std::optional<std::string> {
    if (command["execute"] == "quit") return std::nullopt;
    return FakeQmpServer::Return(command);
  });
  auto client = OpenClient(server);
  ASSERT_TRUE(client.ok()) << client.status();
  ExpectMessage((*client)->Execute("quit").status(), absl::StatusCode::kUnavailable,
                "closed the connection before an answer to \"quit\"");
  EXPECT_EQ((*client)->Execute("stop").status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ((*client)->WaitForEvent({"STOP"}, kLong).status().code(),
            absl::StatusCode::kUnavailable);
}

// The answer to a command that was given up is not taken for that to the next one.
TEST(QmpClient, GoesOnAfterACommandThatTookTooLong) {
  std::string late;
  FakeQmpServer server([&](const json& command, UniqueFd) -> std::optional<std::string> {
    if (command["execute"] == "slow") {
      late = FakeQmpServer::Return(command, "late");
      return "";
    }
    return std::exchange(late, "") + FakeQmpServer::Return(command, "in time");
  });
  auto client = OpenClient(server);
  ASSERT_TRUE(client.ok()) << client.status();
  (*client)->set_timeout(kShort);
  ExpectMessage((*client)->Execute("slow").status(), absl::StatusCode::kDeadlineExceeded,
                "did not send an answer to \"slow\"");
  (*client)->set_timeout(kLong);
  auto answer = (*client)->Execute("fast");
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(*answer, "in time");
}

TEST(QmpClient, RefusesWhatDoesNotSpeakQmp) {
  for (const char* greeting : {"SSH-2.0-OpenSSH_9.2\r\n", "{\"hello\": 1}\r\n", "[1, 2]\n",
                               "{\"return\": {}}\r\n", "{]}\r\n", "{\"QMP\r\n\": }"}) {
    FakeQmpServer server(Agree, greeting);
    ExpectMessage(OpenClient(server).status(), absl::StatusCode::kFailedPrecondition,
                  "start QEMU with -qmp unix:PATH,server=on,wait=off");
  }
  FakeQmpServer garbage(
      [](const json&, UniqueFd) { return std::string("\0\xff\xfe garbage", 11); });
  ExpectMessage(OpenClient(garbage).status(), absl::StatusCode::kFailedPrecondition,
                "does not speak QMP");
}

TEST(QmpClient, SaysThatAnotherClientMayBeConnectedWhereNobodyGreets) {
  FakeQmpServer server(Agree, "");
  ExpectMessage(QmpClient::Open(server.TakeClientEnd(), "fake.sock", kShort).status(),
                absl::StatusCode::kDeadlineExceeded, "another may be connected");
}

TEST(QmpClient, NamesThePathWhereNobodyListens) {
  ExpectMessage(QmpClient::Connect("/nowhere/qmp.sock", kShort).status(),
                absl::StatusCode::kUnavailable, "/nowhere/qmp.sock (No such file or directory)");
  EXPECT_EQ(QmpClient::Connect(std::string(200, 'x'), kShort).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(QmpMessage, IsReadWhateverKindItIs) {
  auto message = ParseQmpMessage(R"({"return": [], "id": 7})");
  ASSERT_TRUE(message.ok());
  EXPECT_EQ(message->kind, QmpMessage::Kind::kReturn);
  EXPECT_EQ(message->id, 7u);
  message = ParseQmpMessage(R"({"error": {"class": "GenericError", "desc": "no"}})");
  ASSERT_TRUE(message.ok());
  EXPECT_EQ(message->kind, QmpMessage::Kind::kError);
  EXPECT_EQ(message->description, "no");
  EXPECT_FALSE(message->id.has_value());
  message = ParseQmpMessage(
      R"({"event": "STOP", "timestamp": {"seconds": 1700000000, "microseconds": 250}})");
  ASSERT_TRUE(message.ok());
  EXPECT_EQ(message->time, absl::FromUnixMicros(1'700'000'000'000'250));
  message = ParseQmpMessage(R"({"event": "STOP", "timestamp": {"seconds": "x"}})");
  ASSERT_TRUE(message.ok());
  EXPECT_EQ(message->time, absl::UnixEpoch());
  message = ParseQmpMessage(R"({"event": "RESUME", "data": 5})");
  ASSERT_TRUE(message.ok());
  EXPECT_EQ(message->name, "RESUME");
  for (const char* text : {"", "{}", "null", "{\"event\": 3}", "{\"error\": 1}", "[{}]"}) {
    EXPECT_EQ(ParseQmpMessage(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

// The real one, over a pair of sockets: commands, a refusal, a descriptor, events, the end.
TEST(QmpClient, SpeaksWithARealQemu) {
  int ends[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
  UniqueFd ours(ends[0]);
  UniqueFd theirs(ends[1]);
  fcntl(ours.get(), F_SETFD, FD_CLOEXEC);
  auto qemu = ChildProcess::Start(
      {"qemu-system-x86_64", "-machine", "none", "-nodefaults", "-display", "none", "-S",
       "-chardev", "socket,id=qmp,fd=" + std::to_string(theirs.get()), "-mon",
       "chardev=qmp,mode=control"},
      {});
  ASSERT_TRUE(qemu.ok()) << qemu.status();
  theirs.reset();
  auto client = QmpClient::Open(std::move(ours), "qemu", kLong);
  if (!client.ok() && qemu->Wait() == 127) GTEST_SKIP() << "qemu-system-x86_64 is not installed";
  ASSERT_TRUE(client.ok()) << client.status();
  EXPECT_GE((*client)->version(), 1'000'000u);

  auto status = (*client)->Execute("query-status");
  ASSERT_TRUE(status.ok()) << status.status();
  EXPECT_EQ((*status)["running"], false);
  ExpectMessage((*client)->Execute("nonsense").status(), absl::StatusCode::kUnimplemented,
                "nonsense");
  ExpectMessage(
      (*client)->Execute("qom-get", {{"path", "/objects/mem0"}, {"property", "share"}}).status(),
      absl::StatusCode::kNotFound, "mem0");
  const UniqueFd file(memfd_create("state", MFD_CLOEXEC));
  EXPECT_TRUE((*client)->ExecuteWithDescriptor("getfd", {{"fdname", "state"}}, file.get()).ok());
  EXPECT_TRUE((*client)->Execute("closefd", {{"fdname", "state"}}).ok());

  EXPECT_TRUE((*client)->Execute("cont").ok());
  auto event = (*client)->WaitForEvent({"RESUME"}, kLong);
  EXPECT_TRUE(event.ok()) << event.status();
  EXPECT_TRUE((*client)->Execute("quit").ok());
  EXPECT_EQ(qemu->Wait(), 0);
  EXPECT_EQ((*client)->WaitForEvent({"NEVER"}, kLong).status().code(),
            absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace faultline
