// SPDX-License-Identifier: Apache-2.0
//
// The agent's program: its flags, its start while no page server is there, and its end. What it
// does with memory is tested where that is done.
#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>

#include <cstdlib>
#include <deque>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "client/attach/test_peer.h"
#include "client/unique_fd.h"

namespace faultline {
namespace {

// A run of the program; its standard output and error are one text.
class AgentProcess {
 public:
  explicit AgentProcess(std::vector<std::string> args) {
    int ends[2];
    EXPECT_EQ(pipe2(ends, O_CLOEXEC), 0);
    pid_ = fork();
    if (pid_ == 0) {
      dup2(ends[1], STDOUT_FILENO);
      dup2(ends[1], STDERR_FILENO);
      args.insert(args.begin(), FAULTLINE_AGENT);
      std::vector<char*> argv;
      for (std::string& arg : args) argv.push_back(arg.data());
      argv.push_back(nullptr);
      execv(argv[0], argv.data());
      _exit(127);
    }
    close(ends[1]);
    output_.reset(ends[0]);
  }
  ~AgentProcess() {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
  }

  // Reads what it prints until that has `text`, or until it ends; returns everything so far.
  const std::string& WaitForOutput(absl::string_view text) {
    char bytes[512];
    ssize_t n;
    while (!absl::StrContains(seen_, text) && (n = read(output_.get(), bytes, sizeof bytes)) > 0) {
      seen_.append(bytes, static_cast<size_t>(n));
    }
    return seen_;
  }

  void Signal(int number) { ASSERT_EQ(kill(pid_, number), 0); }

  // Its exit status, or -1 where it was killed.
  int Wait() {
    WaitForOutput("this is never printed");
    int status = 0;
    EXPECT_EQ(waitpid(pid_, &status, 0), pid_);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  const std::string& output() const { return seen_; }

 private:
  pid_t pid_ = -1;
  UniqueFd output_;
  std::string seen_;
};

class AgentTest : public testing::Test {
 protected:
  AgentTest() {
    std::string name = absl::StrCat(testing::TempDir(), "/agentXXXXXX");
    folder_ = mkdtemp(name.data());
    socket_ = absl::StrCat(folder_, "/agent.sock");
  }
  ~AgentTest() override { std::filesystem::remove_all(folder_); }

  // The flags of an agent whose page server is not there.
  std::vector<std::string> Flags(const std::vector<std::string>& more = {}) {
    std::vector<std::string> flags = {absl::StrCat("--server=unix:", folder_, "/server.sock"),
                                      absl::StrCat("--socket=", socket_)};
    flags.insert(flags.end(), more.begin(), more.end());
    return flags;
  }

  std::string folder_;
  std::string socket_;
};

TEST_F(AgentTest, RefusesFlagsThatItDoesNotKnowSayingWhatItDoes) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"--prefetch=oracle",
       "unknown prefetch policy \"oracle\"; known are none, sequential, majority, streams and "
       "cluster"},
      {"--fault-policy=panic", "unknown fault policy \"panic\"; known are wait, poison and kill"},
      {"--socket-mode=rw", "\"rw\" is no file mode; write it in octal, such as 0660"},
      {"--fault-deadline=soon", "\"soon\" is no duration"},
      {"--inject=loss=2", "--inject: loss=2: \"2\" is no share; write a number from 0 to 1"},
      {"--inject=dialup", "the name of a profile: cxl (latency=500ns"},
      {"--readers=0", "--readers: Value 0 not in range 1 to 256"},
      {"--log-level=all", "\"all\" is no log level; write debug, info, warning or error"},
      {"--unknown", "--unknown"},
  };
  for (const auto& [flag, message] : cases) {
    AgentProcess agent({flag});
    EXPECT_GT(agent.Wait(), 0) << flag;
    EXPECT_TRUE(absl::StrContains(agent.output(), message)) << agent.output();
  }
}

TEST_F(AgentTest, HelpNamesUnitsAndDefaults) {
  AgentProcess agent({"--help"});
  EXPECT_EQ(agent.Wait(), 0);
  for (const absl::string_view text :
       {"--server ADDRESS=127.0.0.1:7400", "--socket PATH=/run/faultline/agent.sock",
        "--fault-policy POLICY=poison", "--fault-deadline DURATION=1m", "--prefetch POLICY=none",
        "Env:FAULTLINE_AGENT_VOLUME"}) {
    EXPECT_TRUE(absl::StrContains(agent.output(), text)) << text << "\n" << agent.output();
  }
}

TEST_F(AgentTest, SaysWhatIsInjectedOnTheWayToThePageServer) {
  AgentProcess agent(Flags({"--inject=rdma,loss=0.01"}));
  const std::string& output = agent.WaitForOutput("ready: ");
  EXPECT_TRUE(absl::StrContains(output,
                                "the way to the page server is made worse: latency=4us,"
                                "jitter=1us,bandwidth=100gbit,loss=0.01"))
      << output;
  agent.Signal(SIGTERM);
  EXPECT_EQ(agent.Wait(), 0);
}

TEST_F(AgentTest, FlagsMayStandInAFile) {
  const std::string path = absl::StrCat(folder_, "/agent.toml");
  std::ofstream(path) << "socket = \"" << socket_
                      << "\"\nfault-policy = \"kill\"\nvolume = \"vm\"\n";
  AgentProcess agent({absl::StrCat("--config=", path), "--server=127.0.0.1:1"});
  const std::string& output = agent.WaitForOutput("fault policy kill");
  EXPECT_TRUE(absl::StrContains(output, absl::StrCat("handovers at ", socket_))) << output;
  EXPECT_TRUE(absl::StrContains(output, "volume vm, fault policy kill after 1m")) << output;
}

TEST_F(AgentTest, StartsWithoutAPageServerAndSaysOnlyWhenAskedThatItIsMissing) {
  AgentProcess agent(Flags({"--handover-timeout=100ms"}));
  EXPECT_TRUE(absl::StrContains(agent.WaitForOutput("ready: "), "ready: ")) << agent.output();
  TestPeer peer(socket_);
  peer.Send(R"({"query":"attachments"}{"query":"volume","volume":"vm"})");
  EXPECT_EQ(peer.ReadLine(), R"({"attachments":[],"status":"ok"})");
  const std::string error = peer.ReadLine();
  EXPECT_TRUE(absl::StrContains(error, R"("status":"error")")) << error;
  EXPECT_TRUE(absl::StrContains(error, "server.sock")) << error;
}

TEST_F(AgentTest, SignalEndsItInOrder) {
  for (const int number : {SIGTERM, SIGINT}) {
    AgentProcess agent(Flags());
    agent.WaitForOutput("ready: ");
    agent.Signal(number);
    EXPECT_EQ(agent.Wait(), 0) << agent.output();
    EXPECT_TRUE(absl::StrContains(agent.output(), "stopped")) << agent.output();
    EXPECT_FALSE(std::filesystem::exists(socket_));
  }
}

// The first signal waits for tries to open a volume, which nobody answers; the second does not.
TEST_F(AgentTest, SecondSignalEndsItAtOnceSayingWhatThatMeans) {
  AgentProcess agent(Flags({"--handover-timeout=10m"}));
  agent.WaitForOutput("ready: ");
  // More than there are workers, so that when one try has ended others begin.
  std::deque<TestPeer> peers;
  for (int i = 0; i < 16; ++i) {
    peers.emplace_back(socket_).Send(R"({"query":"volume","volume":"vm"})");
  }
  agent.WaitForOutput("cannot be opened yet");
  agent.Signal(SIGTERM);
  agent.WaitForOutput("a second signal ends at once");
  agent.Signal(SIGINT);
  EXPECT_EQ(agent.Wait(), 3) << agent.output();
  EXPECT_TRUE(absl::StrContains(agent.output(), "Memory that is not filled turns into zeros"))
      << agent.output();
}

TEST_F(AgentTest, SecondAgentOnOneSocketIsRefused) {
  AgentProcess first(Flags());
  first.WaitForOutput("ready: ");
  AgentProcess second(Flags());
  EXPECT_EQ(second.Wait(), 1);
  EXPECT_TRUE(absl::StrContains(
      second.output(),
      absl::StrCat("cannot start: the journal ", socket_, ".journal is in use by another agent")))
      << second.output();
}

TEST_F(AgentTest, TakesOverTheSocketOfAnAgentThatWasKilled) {
  {
    AgentProcess killed(Flags());
    killed.WaitForOutput("ready: ");
  }
  ASSERT_TRUE(std::filesystem::exists(socket_));
  AgentProcess next(Flags());
  EXPECT_TRUE(absl::StrContains(next.WaitForOutput("ready: "), "ready: ")) << next.output();
}

TEST_F(AgentTest, AddressOfNeitherFormIsRefused) {
  AgentProcess agent({"--server=nowhere", absl::StrCat("--socket=", socket_)});
  EXPECT_EQ(agent.Wait(), 1);
  EXPECT_TRUE(absl::StrContains(agent.output(), "cannot start: ")) << agent.output();
  EXPECT_TRUE(absl::StrContains(agent.output(), "nowhere")) << agent.output();
}

}  // namespace
}  // namespace faultline
