#include <fstream>
// SPDX-License-Identifier: Apache-2.0
//
// The library against a real agent: handover server, pager and kernel, with volumes in memory. The
// agent is a process of its own, as it must be: a pager in the process that it pages would wait for
// itself.
#include <absl/strings/str_cat.h>
#include <fcntl.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <cstddef>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <functional>
#include <iterator>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "client/attach/handover_server.h"
#include "client/lib/faultline.h"
#include "client/lib/open_userfaultfd.h"
#include "client/pager.h"
#include "client/source/memory_page_source.h"
#include "client/unique_fd.h"

namespace faultline {
namespace {

constexpr uint64_t kPages = 300;
constexpr uint64_t kSeed = 20240215;

// Random pages, and every fifth of them zero.
std::string Content() {
  std::mt19937_64 random(kSeed);
  std::string content(kPages * kPageSize, '\0');
  for (uint64_t page = 0; page < kPages; ++page) {
    if (page % 5 == 0) continue;
    for (uint64_t i = 0; i < kPageSize; i += sizeof(uint64_t)) {
      const uint64_t word = random();
      memcpy(content.data() + page * kPageSize + i, &word, sizeof word);
    }
  }
  return content;
}

// Never answers a fetch.
class StuckSource : public PageSource {
 public:
  void Fetch(PageRange, FetchLane, absl::Time, FetchDone done) override {
    waiting_.push_back(std::move(done));
  }
  PageCount size() const override { return PageCount(kPages); }
  PageCount max_fetch() const override { return PageCount(1); }

 private:
  std::vector<FetchDone> waiting_;
};

[[noreturn]] void RunAgent(const std::string& socket_path, int ready, int stop) {
  auto pager = Pager::Create({});
  if (!pager.ok()) _exit(1);
  HandoverServerOptions options;
  options.socket_path = socket_path;
  const std::string content = Content();
  auto server = HandoverServer::Start(
      options, pager->get(),
      [&](absl::string_view volume, absl::Time) -> absl::StatusOr<std::shared_ptr<PageSource>> {
        if (volume == "vm") return std::make_shared<MemoryPageSource>(content);
        if (volume == "stuck") return std::make_shared<StuckSource>();
        return absl::NotFoundError(absl::StrCat("no volume named ", volume));
      });
  if (!server.ok()) _exit(1);
  if (write(ready, "r", 1) != 1) _exit(1);
  char byte;
  while (read(stop, &byte, 1) < 0) continue;  // until the test is over
  (*server)->StopHandovers();
  (*pager)->Stop();
  _exit(0);
}

class FaultlineLibTest : public testing::Test {
 protected:
  void SetUp() override {
    UniqueFd uffd;
    if (Failure failure = OpenUserfaultfd(&uffd); !failure.ok()) GTEST_SKIP() << failure.message;
    std::string name = absl::StrCat(testing::TempDir(), "/libXXXXXX");
    folder_ = mkdtemp(name.data());
    socket_path_ = absl::StrCat(folder_, "/agent.sock");
    int ready[2];
    int stop[2];
    ASSERT_EQ(pipe2(ready, O_CLOEXEC), 0);
    ASSERT_EQ(pipe2(stop, O_CLOEXEC), 0);
    agent_ = fork();
    ASSERT_GE(agent_, 0);
    if (agent_ == 0) {
      close(stop[1]);
      RunAgent(socket_path_, ready[1], stop[0]);
    }
    close(ready[1]);
    close(stop[0]);
    stop_.reset(stop[1]);
    char byte;
    ASSERT_EQ(read(ready[0], &byte, 1), 1) << "the agent did not start";
    close(ready[0]);
    options_.socket_path = socket_path_.c_str();
    options_.volume = "vm";
  }

  void TearDown() override {
    if (agent_ <= 0) return;
    stop_.reset();
    int status = 0;
    ASSERT_EQ(waitpid(agent_, &status, 0), agent_);
    EXPECT_TRUE(killed_ || status == 0) << "the agent failed: " << status;
    std::filesystem::remove_all(folder_);
  }

  void KillAgent() {
    killed_ = true;
    ASSERT_EQ(kill(agent_, SIGKILL), 0);
  }

  faultline_mapping* Map() {
    faultline_mapping* mapping = nullptr;
    faultline_error error = {};
    EXPECT_EQ(faultline_map(&options_, &mapping, &error), 0) << error.message;
    return mapping;
  }

  static void Unmap(faultline_mapping* mapping) {
    faultline_error error = {};
    EXPECT_EQ(faultline_unmap(mapping, &error), 0) << error.message;
  }

  static absl::string_view BytesOf(const faultline_mapping* mapping) {
    return {static_cast<const char*>(faultline_address(mapping)), faultline_length(mapping)};
  }

  // Runs `body` in a child process, whose standard error goes to `output`; returns its wait status.
  int RunChild(const std::function<void()>& body, std::string* output) {
    int pipe_ends[2];
    EXPECT_EQ(pipe2(pipe_ends, O_CLOEXEC), 0);
    const pid_t child = fork();
    if (child == 0) {
      dup2(pipe_ends[1], STDERR_FILENO);
      stop_.reset();
      body();
      _exit(0);
    }
    close(pipe_ends[1]);
    char bytes[512];
    ssize_t n;
    while ((n = read(pipe_ends[0], bytes, sizeof bytes)) > 0) {
      output->append(bytes, static_cast<size_t>(n));
    }
    close(pipe_ends[0]);
    int status = -1;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    return status;
  }

  std::string folder_;
  std::string socket_path_;
  faultline_map_options options_ = FAULTLINE_MAP_OPTIONS_INIT;
  pid_t agent_ = -1;
  bool killed_ = false;
  UniqueFd stop_;
};

TEST_F(FaultlineLibTest, WholeVolumeReadsAsItIs) {
  faultline_mapping* mapping = Map();
  ASSERT_NE(mapping, nullptr);
  EXPECT_EQ(faultline_length(mapping), kPages * kPageSize);
  EXPECT_GT(faultline_attachment(mapping), 0u);
  EXPECT_TRUE(BytesOf(mapping) == Content()) << "seed " << kSeed;
  Unmap(mapping);
}

TEST_F(FaultlineLibTest, PartOfAVolumeReadsAsItIs) {
  options_.offset = 7 * kPageSize;
  options_.length = 50 * kPageSize;
  faultline_mapping* mapping = Map();
  ASSERT_NE(mapping, nullptr);
  EXPECT_EQ(faultline_length(mapping), 50 * kPageSize);
  EXPECT_TRUE(BytesOf(mapping) == Content().substr(7 * kPageSize, 50 * kPageSize));
  Unmap(mapping);
}

TEST_F(FaultlineLibTest, LengthZeroReachesToTheEndOfTheVolume) {
  options_.offset = (kPages - 1) * kPageSize;
  faultline_mapping* mapping = Map();
  ASSERT_NE(mapping, nullptr);
  EXPECT_TRUE(BytesOf(mapping) == Content().substr((kPages - 1) * kPageSize));
  Unmap(mapping);
}

TEST_F(FaultlineLibTest, MemfdIsFilledToo) {
  options_.memory = FAULTLINE_MAP_SHARED;
  faultline_mapping* mapping = Map();
  ASSERT_NE(mapping, nullptr);
  EXPECT_TRUE(BytesOf(mapping) == Content());
  // The pages that were filled are in the memfd.
  std::string page(kPageSize, '\0');
  ASSERT_EQ(pread(faultline_memfd(mapping), page.data(), kPageSize, kPageSize),
            static_cast<ssize_t>(kPageSize));
  EXPECT_TRUE(page == Content().substr(kPageSize, kPageSize));
  Unmap(mapping);
}

TEST_F(FaultlineLibTest, WritesStayInTheProcess) {
  for (int i = 0; i < 2; ++i) {
    faultline_mapping* mapping = Map();
    ASSERT_NE(mapping, nullptr);
    EXPECT_TRUE(BytesOf(mapping) == Content());
    memset(faultline_address(mapping), 'x', faultline_length(mapping));
    EXPECT_EQ(BytesOf(mapping), std::string(kPages * kPageSize, 'x'));
    Unmap(mapping);
  }
}

TEST_F(FaultlineLibTest, ManyThreadsAndMappingsAtOnce) {
  const std::string content = Content();
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      faultline_mapping* mapping = Map();
      ASSERT_NE(mapping, nullptr);
      EXPECT_TRUE(BytesOf(mapping) == content);
      Unmap(mapping);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_F(FaultlineLibTest, UnmapLeavesNoMemoryAndNoDescriptor) {
  const auto count = [] {
    return std::distance(std::filesystem::directory_iterator("/proc/self/fd"),
                         std::filesystem::directory_iterator());
  };
  const auto before = count();
  faultline_mapping* mapping = Map();
  ASSERT_NE(mapping, nullptr);
  void* address = faultline_address(mapping);
  Unmap(mapping);
  EXPECT_EQ(count(), before);
  EXPECT_EQ(msync(address, kPageSize, MS_ASYNC), -1);
  EXPECT_EQ(errno, ENOMEM);
}

TEST_F(FaultlineLibTest, AgentsRefusalIsTold) {
  options_.volume = "other";
  faultline_mapping* mapping = nullptr;
  faultline_error error = {};
  EXPECT_EQ(faultline_map(&options_, &mapping, &error), -EREMOTEIO);
  EXPECT_EQ(error.message,
            absl::StrCat("the agent at ", socket_path_, " says: no volume named other"));
  options_.volume = "vm";
  options_.length = (kPages + 1) * kPageSize;
  EXPECT_EQ(faultline_map(&options_, &mapping, &error), -EREMOTEIO);
  EXPECT_NE(std::string(error.message).find("reaches beyond the volume's"), std::string::npos)
      << error.message;
  options_.length = 0;
  options_.offset = kPages * kPageSize;
  EXPECT_EQ(faultline_map(&options_, &mapping, &error), -EINVAL);
  EXPECT_STREQ(error.message, "offset 1228800 is not within volume vm, which has 1228800 bytes");
  EXPECT_EQ(mapping, nullptr);
}

TEST_F(FaultlineLibTest, MemoryIsNotThereInAChild) {
  faultline_mapping* mapping = Map();
  ASSERT_NE(mapping, nullptr);
  std::string output;
  const int status = RunChild(
      [&] {
        signal(SIGSEGV, SIG_DFL);  // a sanitizer's handler would exit instead
        const volatile char byte = *static_cast<const volatile char*>(faultline_address(mapping));
        (void)byte;
      },
      &output);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV) << status;
  EXPECT_TRUE(BytesOf(mapping) == Content());
  Unmap(mapping);
}

// A thread waits for a page that never comes when the agent is killed: no zeros, but the end.
TEST_F(FaultlineLibTest, LossOfTheAgentKillsTheProcess) {
  options_.volume = "stuck";
  std::string output;
  const int status = RunChild(
      [&] {
        faultline_mapping* mapping = Map();
        if (mapping == nullptr) _exit(1);
        signal(SIGABRT, [](int) { _exit(2); });  // is not asked
        std::thread([this] { KillAgent(); }).detach();
        const char byte = *static_cast<const volatile char*>(faultline_address(mapping));
        _exit(byte == 0 ? 3 : 4);
      },
      &output);
  killed_ = true;
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT) << status;
  EXPECT_NE(output.find("faultline: the agent is gone, and with it the pages of volume stuck that "
                        "are not filled: killing process "),
            std::string::npos)
      << output;
}

TEST_F(FaultlineLibTest, UnderPolicyWaitFilledPagesOutliveTheAgent) {
  options_.on_agent_loss = FAULTLINE_ON_AGENT_LOSS_WAIT;
  faultline_mapping* mapping = Map();
  ASSERT_NE(mapping, nullptr);
  const std::string content = Content();
  EXPECT_TRUE(BytesOf(mapping) == content);
  KillAgent();
  ASSERT_EQ(waitid(P_PID, static_cast<id_t>(agent_), nullptr, WEXITED | WNOWAIT), 0);
  EXPECT_TRUE(BytesOf(mapping) == content);
  // Without an agent there is nobody to wait for.
  Unmap(mapping);
}

TEST_F(FaultlineLibTest, UnderPolicyWaitMissingPagesAreNeverZeros) {
  options_.on_agent_loss = FAULTLINE_ON_AGENT_LOSS_WAIT;
  options_.volume = "stuck";
  int told[2];
  ASSERT_EQ(pipe2(told, O_CLOEXEC), 0);
  const pid_t child = fork();
  if (child == 0) {
    stop_.reset();
    close(told[0]);
    faultline_mapping* mapping = Map();
    if (mapping == nullptr || write(told[1], "m", 1) != 1) _exit(1);
    const char byte = *static_cast<const volatile char*>(faultline_address(mapping));
    [[maybe_unused]] const ssize_t n = write(told[1], byte == 0 ? "0" : "x", 1);
    _exit(0);
  }
  close(told[1]);
  char byte = 0;
  ASSERT_EQ(read(told[0], &byte, 1), 1);
  ASSERT_EQ(byte, 'm');
  KillAgent();
  ASSERT_EQ(waitid(P_PID, static_cast<id_t>(agent_), nullptr, WEXITED | WNOWAIT), 0);
  // Whether the access comes before or after the agent's end, it does not return. That cannot be
  // waited for, so it is given a little time to go wrong in.
  pollfd readable{told[0], POLLIN, 0};
  EXPECT_EQ(poll(&readable, 1, 200), 0);
  EXPECT_EQ(waitpid(child, nullptr, WNOHANG), 0) << "the process was to go on";
  ASSERT_EQ(kill(child, SIGKILL), 0);
  ASSERT_EQ(waitpid(child, nullptr, 0), child);
  EXPECT_EQ(read(told[0], &byte, 1), 0) << "an access to a missing page returned";
  close(told[0]);
}

TEST_F(FaultlineLibTest, OrderlyEndOfTheAgentPoisonsWhatIsMissing) {
  options_.on_agent_loss = FAULTLINE_ON_AGENT_LOSS_WAIT;
  int to_test[2];
  int to_child[2];
  ASSERT_EQ(pipe2(to_test, O_CLOEXEC), 0);
  ASSERT_EQ(pipe2(to_child, O_CLOEXEC), 0);
  const pid_t child = fork();
  if (child == 0) {
    stop_.reset();
    signal(SIGBUS, SIG_DFL);  // a sanitizer's handler would exit instead
    faultline_mapping* mapping = Map();
    if (mapping == nullptr) _exit(1);
    const volatile char* bytes = static_cast<const volatile char*>(faultline_address(mapping));
    const std::string content = Content();
    char byte = 0;
    if (bytes[kPageSize] != content[kPageSize]) _exit(2);
    if (write(to_test[1], "m", 1) != 1 || read(to_child[0], &byte, 1) != 1) _exit(3);
    if (bytes[kPageSize] != content[kPageSize]) _exit(4);
    _exit(bytes[2 * kPageSize] == 0 ? 5 : 6);
  }
  char byte = 0;
  ASSERT_EQ(read(to_test[0], &byte, 1), 1);
  stop_.reset();
  ASSERT_EQ(waitid(P_PID, static_cast<id_t>(agent_), nullptr, WEXITED | WNOWAIT), 0);
  ASSERT_EQ(write(to_child[1], "t", 1), 1);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS) << status;
  for (const int fd : {to_test[0], to_test[1], to_child[0], to_child[1]}) close(fd);
}

// Makes this process one without any privilege; _exit(10) where that fails.
void DropPrivileges() {
  constexpr id_t kNobody = 65534;
  if (setgroups(0, nullptr) != 0 || setgid(kNobody) != 0 || setuid(kNobody) != 0) _exit(10);
}

// Whether anybody may have a userfaultfd here, so that nobody can be refused one.
bool EverybodyMayHaveUserfaultfd() {
  std::ifstream sysctl("/proc/sys/vm/unprivileged_userfaultfd");
  struct stat device {};
  return sysctl.get() == '1' ||
         (stat("/dev/userfaultfd", &device) == 0 && (device.st_mode & S_IWOTH) != 0);
}

TEST_F(FaultlineLibTest, MessageNamesTheWaysToPermission) {
  if (getuid() != 0) GTEST_SKIP() << "only root can drop privileges";
  if (EverybodyMayHaveUserfaultfd()) GTEST_SKIP() << "userfaultfd is open to everybody here";
  std::string output;
  const int status = RunChild(
      [] {
        DropPrivileges();
        UniqueFd uffd;
        const Failure failure = OpenUserfaultfd(&uffd);
        dprintf(STDERR_FILENO, "%d %s", failure.code, failure.message.c_str());
      },
      &output);
  EXPECT_EQ(status, 0);
  for (const char* part : {"1 this process may not have a userfaultfd", "CAP_SYS_PTRACE",
                           "/dev/userfaultfd", "sysctl vm.unprivileged_userfaultfd=1"}) {
    EXPECT_NE(output.find(part), std::string::npos) << part << " is not in: " << output;
  }
}

TEST_F(FaultlineLibTest, WorksFromC) {
  FILE* program = popen(absl::StrCat(FAULTLINE_C_TEST, " ", socket_path_, " vm").c_str(), "r");
  ASSERT_NE(program, nullptr);
  unsigned long long sum = 0;
  EXPECT_EQ(fscanf(program, "%llu", &sum), 1);
  EXPECT_EQ(pclose(program), 0);
  unsigned long long expected = 0;
  for (const char byte : Content()) expected += static_cast<unsigned char>(byte);
  EXPECT_EQ(sum, expected);
}

TEST(FaultlineLib, ArgumentsAreCheckedFromC) { EXPECT_EQ(system(FAULTLINE_C_TEST), 0); }

}  // namespace
}  // namespace faultline
