// SPDX-License-Identifier: Apache-2.0
#include "client/vm/fault_pause.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "client/vm/fake_qmp_server.h"
#include "proto/mutex.h"

namespace faultline {
namespace {

constexpr double kLate = 7;

AttachmentStats Waiting(double seconds) {
  AttachmentStats stats;
  stats.waiting_faults = seconds == 0 ? 0 : 1;
  stats.oldest_wait_seconds = seconds;
  return stats;
}

class FaultPauseTest : public testing::Test {
 protected:
  FaultPauseTest()
      : server_([this](const nlohmann::json& command, UniqueFd) { return Answer(command); }),
        qemu_(*QmpClient::Open(server_.TakeClientEnd(), "the test", absl::Seconds(10))),
        pause_(&qemu_, absl::Seconds(5), &output_) {}

  std::optional<std::string> Answer(const nlohmann::json& command) {
    const std::string name = command["execute"];
    MutexLock lock(mu_);
    if (name == "query-status") {
      if (name == silent_about_) return "";
      return FakeQmpServer::Return(command, {{"running", running_}});
    }
    if (name != "qmp_capabilities") commands_.push_back(name);
    if (name == silent_about_) return "";
    if (name == "stop") running_ = false;
    if (name == "cont") running_ = true;
    return FakeQmpServer::Return(command);
  }

  std::vector<std::string> Commands() {
    MutexLock lock(mu_);
    return commands_;
  }

  Mutex mu_;
  bool running_ ABSL_GUARDED_BY(mu_) = true;
  std::string silent_about_ ABSL_GUARDED_BY(mu_);
  std::vector<std::string> commands_ ABSL_GUARDED_BY(mu_);
  FakeQmpServer server_;
  Qemu qemu_;
  const VmOutput output_{"vm test", OutputFormat::kJson};
  FaultPause pause_;
};

TEST_F(FaultPauseTest, StopsOnceAFaultIsLateAndContinuesWhenNoneIs) {
  pause_.Look(Waiting(4.9));
  EXPECT_EQ(Commands(), (std::vector<std::string>{}));
  for (int i = 0; i < 3; ++i) pause_.Look(Waiting(kLate));
  EXPECT_EQ(Commands(), (std::vector<std::string>{"stop"}));
  EXPECT_TRUE(pause_.stopped());
  for (int i = 0; i < 3; ++i) pause_.Look(Waiting(0));
  EXPECT_EQ(Commands(), (std::vector<std::string>{"stop", "cont"}));
  pause_.Look(Waiting(kLate));
  EXPECT_EQ(Commands(), (std::vector<std::string>{"stop", "cont", "stop"}));
}

TEST_F(FaultPauseTest, LeavesAMachineAloneThatSomebodyElseHasPaused) {
  {
    MutexLock lock(mu_);
    running_ = false;
  }
  for (const double seconds : {kLate, kLate, 0.0, 0.0}) pause_.Look(Waiting(seconds));
  EXPECT_EQ(Commands(), (std::vector<std::string>{}));
}

// As QEMU is while a processor waits for its page within an instruction.
TEST_F(FaultPauseTest, ContinuesAMachineThatHasNotAnsweredThatItIsStopped) {
  {
    MutexLock lock(mu_);
    silent_about_ = "stop";
  }
  pause_.Look(Waiting(kLate));
  EXPECT_TRUE(pause_.stopped());
  pause_.Look(Waiting(0));
  EXPECT_FALSE(pause_.stopped());
  EXPECT_EQ(Commands(), (std::vector<std::string>{"stop", "cont"}));
}

// As QEMU is while its own thread waits for a page.
TEST_F(FaultPauseTest, TriesAgainWhereQemuAnswersNothing) {
  {
    MutexLock lock(mu_);
    silent_about_ = "query-status";
  }
  pause_.Look(Waiting(kLate));
  EXPECT_EQ(Commands(), (std::vector<std::string>{}));
  {
    MutexLock lock(mu_);
    silent_about_ = "";
  }
  pause_.Look(Waiting(kLate));
  EXPECT_EQ(Commands(), (std::vector<std::string>{"stop"}));
}

}  // namespace
}  // namespace faultline
