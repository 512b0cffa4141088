// SPDX-License-Identifier: Apache-2.0
//
// The preloaded library in a C program, against a real agent: handover server, pager and kernel,
// with volumes in memory.
#include "client/lib/preload.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "client/attach/handover_server.h"
#include "client/pager.h"
#include "client/source/memory_page_source.h"
#include "client/uffd/uffd.h"
#include "client/unique_fd.h"

namespace faultline {
namespace {

constexpr uint64_t kPages = 300;
constexpr uint64_t kBytes = kPages * kPageSize;
constexpr uint64_t kSeed = 20240216;

std::string Content() {
  std::mt19937_64 random(kSeed);
  std::string content(kBytes, '\0');
  for (uint64_t i = 0; i < kBytes; i += sizeof(uint64_t)) {
    const uint64_t word = random();
    memcpy(content.data() + i, &word, sizeof word);
  }
  return content;
}

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

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
        return absl::NotFoundError(absl::StrCat("no volume named ", volume));
      });
  if (!server.ok() || write(ready, "r", 1) != 1) _exit(1);
  char byte;
  while (read(stop, &byte, 1) < 0) continue;  // until the test is over
  (*server)->StopHandovers();
  (*pager)->Stop();
  server->reset();  // takes the socket away
  _exit(0);
}

struct Outcome {
  int status = -1;  // as of waitpid
  std::string output, error;
};

class PreloadTest : public testing::Test {
 protected:
  void SetUp() override {
    if (auto uffd = OpenUffd(); !uffd.ok()) GTEST_SKIP() << uffd.status();
    std::string name = "/dev/shm/faultline-preload-XXXXXX";
    folder_ = mkdtemp(name.data());
    socket_path_ = absl::StrCat(folder_, "/agent.sock");
    file_ = absl::StrCat(folder_, "/memory");
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
  }

  void TearDown() override {
    StopAgent();
    if (!folder_.empty()) std::filesystem::remove_all(folder_);
  }

  void StopAgent() {
    stop_.reset();
    if (agent_ <= 0) return;
    int status = 0;
    ASSERT_EQ(waitpid(agent_, &status, 0), agent_);
    EXPECT_EQ(status, 0);
    agent_ = -1;
  }

  // Runs the target to its end. `choice` is the variable that says which mapping is meant.
  Outcome Run(const std::string& choice, const std::string& memory,
              const std::vector<std::string>& actions = {}, uint64_t bytes = kBytes,
              const std::string& further = "FAULTLINE_TEST=1") const {
    std::vector<std::string> arguments = {FAULTLINE_PRELOAD_TARGET, memory, absl::StrCat(bytes)};
    arguments.insert(arguments.end(), actions.begin(), actions.end());
    std::vector<std::string> environment = {absl::StrCat("PATH=", getenv("PATH")),
                                            absl::StrCat("LD_PRELOAD=", FAULTLINE_PRELOAD_LIBRARY),
                                            absl::StrCat("FAULTLINE_PRELOAD_SOCKET=", socket_path_),
                                            "FAULTLINE_PRELOAD_VOLUME=vm",
                                            choice,
                                            further};
    const std::string output = absl::StrCat(folder_, "/out"), error = absl::StrCat(folder_, "/err");
    const pid_t child = fork();
    if (child == 0) {
      constexpr int kFlags = O_WRONLY | O_CREAT | O_TRUNC;
      if (dup2(open(output.c_str(), kFlags, 0600), STDOUT_FILENO) < 0 ||
          dup2(open(error.c_str(), kFlags, 0600), STDERR_FILENO) < 0) {
        _exit(1);
      }
      execve(arguments[0].c_str(), Pointers(arguments).data(), Pointers(environment).data());
      _exit(1);
    }
    Outcome outcome;
    EXPECT_EQ(waitpid(child, &outcome.status, 0), child);
    outcome.output = ReadFile(output);
    outcome.error = ReadFile(error);
    return outcome;
  }

  static std::vector<char*> Pointers(std::vector<std::string>& texts) {
    std::vector<char*> pointers;
    for (std::string& text : texts) pointers.push_back(text.data());
    pointers.push_back(nullptr);
    return pointers;
  }

  static void ExpectBytes(const Outcome& outcome, const std::string& bytes) {
    EXPECT_EQ(outcome.status, 0) << outcome.error;
    EXPECT_EQ(outcome.error, "");
    EXPECT_TRUE(outcome.output == bytes) << "seed " << kSeed;
  }

  // That mmap has failed with `code`, and that the line on stderr has `message`.
  static void ExpectRefusal(const Outcome& outcome, int code, const std::string& message) {
    EXPECT_TRUE(WIFEXITED(outcome.status) && WEXITSTATUS(outcome.status) == 3) << outcome.status;
    EXPECT_NE(outcome.error.find(message), std::string::npos) << outcome.error;
    EXPECT_NE(outcome.error.find(absl::StrCat("mmap: errno ", code, "\n")), std::string::npos)
        << outcome.error;
  }

  std::string Path() const { return absl::StrCat("FAULTLINE_PRELOAD_PATH=", file_); }
  static std::string Memfd() { return absl::StrCat("FAULTLINE_PRELOAD_MEMFD=", kBytes); }
  static std::string Anonymous() { return absl::StrCat("FAULTLINE_PRELOAD_ANONYMOUS=", kBytes); }

  std::string folder_, socket_path_, file_;
  pid_t agent_ = -1;
  UniqueFd stop_;
};

TEST_F(PreloadTest, EveryByteOfAFileIsTheVolumes) { ExpectBytes(Run(Path(), file_), Content()); }

TEST_F(PreloadTest, EveryByteOfAMemfdIsTheVolumes) {
  ExpectBytes(Run(Memfd(), "memfd"), Content());
}

TEST_F(PreloadTest, EveryByteOfAnonymousMemoryIsTheVolumes) {
  ExpectBytes(Run(Anonymous(), "anonymous"), Content());
}

TEST_F(PreloadTest, MappingOverReservedAddressesIsTaken) {
  ExpectBytes(Run(Anonymous(), "anonymous", {"over"}), Content());
  ExpectBytes(Run(Path(), file_, {"over"}), Content());
}

TEST_F(PreloadTest, OtherMappingsAreThePrograms) {
  ExpectBytes(Run(Path(), file_, {"others"}), Content());
  ExpectBytes(Run(Memfd(), "memfd", {"others"}), Content());
  ExpectBytes(Run(Anonymous(), "anonymous", {"others"}), Content());
}

TEST_F(PreloadTest, PartOfAVolumeIsChosenByItsOffset) {
  const Outcome outcome =
      Run(absl::StrCat("FAULTLINE_PRELOAD_ANONYMOUS=", 50 * kPageSize), "anonymous", {},
          50 * kPageSize, absl::StrCat("FAULTLINE_PRELOAD_OFFSET=", 7 * kPageSize));
  ExpectBytes(outcome, Content().substr(7 * kPageSize, 50 * kPageSize));
}

TEST_F(PreloadTest, SecondMappingOfTheSameMemoryIsRefused) {
  for (const auto& [choice, memory] : {std::pair{Path(), file_}, {Anonymous(), "anonymous"}}) {
    const Outcome outcome = Run(choice, memory, {"again"});
    EXPECT_EQ(outcome.output, absl::StrCat("errno ", EBUSY));
    EXPECT_NE(outcome.error.find("a second mapping fits"), std::string::npos) << outcome.error;
  }
}

TEST_F(PreloadTest, ChildrenAreNotPreloaded) {
  const Outcome outcome = Run(Anonymous(), "anonymous", {"env"});
  EXPECT_EQ(outcome.status, 0) << outcome.error;
  EXPECT_EQ(outcome.output, absl::StrCat("PATH=", getenv("PATH"), "\nFAULTLINE_TEST=1\n"));
}

TEST_F(PreloadTest, AbsentAgentFailsTheMapping) {
  StopAgent();
  ExpectRefusal(Run(Anonymous(), "anonymous"), ENOENT, "start faultline-agent with --socket=");
  ExpectRefusal(Run(Path(), file_, {"over"}), ENOENT, "start faultline-agent with --socket=");
}

TEST_F(PreloadTest, VolumeOfAnotherSizeFailsTheMapping) {
  const uint64_t larger = kBytes + kPageSize;
  ExpectRefusal(Run(absl::StrCat("FAULTLINE_PRELOAD_ANONYMOUS=", larger), "anonymous", {}, larger),
                EINVAL, absl::StrCat("volume vm has ", kBytes, " bytes and the memory ", larger));
  ExpectRefusal(
      Run(Path(), file_, {}, kBytes - kPageSize), EINVAL,
      absl::StrCat("volume vm has ", kBytes, " bytes and the memory ", kBytes - kPageSize));
}

TEST_F(PreloadTest, MemoryWithContentIsRefused) {
  ExpectRefusal(Run(Path(), file_, {"touched"}), EBUSY, "has content already");
  ExpectRefusal(Run(Memfd(), "memfd", {"touched"}), EBUSY, "has content already");
  ExpectRefusal(Run(Anonymous(), "anonymous", {"populate"}), EINVAL, "has content already");
}

TEST_F(PreloadTest, FileThatIsNotOnTmpfsIsRefused) {
  const std::string file = absl::StrCat("/var/tmp/faultline-preload-", getpid());
  const Outcome outcome = Run(absl::StrCat("FAULTLINE_PRELOAD_PATH=", file), file);
  std::filesystem::remove(file);
  ExpectRefusal(outcome, EINVAL, "is not on tmpfs");
}

TEST_F(PreloadTest, HolesAreZeroAndWhatIsOnlyUnmappedStays) {
  std::string expected = Content();
  expected.replace(8 * kPageSize + kPageSize / 2, kPageSize + kPageSize / 2,
                   kPageSize + kPageSize / 2, '\0');
  ExpectBytes(Run(Memfd(), "memfd", {"punch"}), expected);
  ExpectBytes(Run(Path(), file_, {"punch"}), expected);
}

TEST_F(PreloadTest, DiscardsOfManyThreadsAreExact) {
  std::string expected(kBytes, '\0');
  for (uint64_t page = 0; page < kPages; page += 10) {
    expected.replace(page * kPageSize, kPageSize, Content().substr(page * kPageSize, kPageSize));
  }
  ExpectBytes(Run(Memfd(), "memfd", {"storm"}), expected);
}

TEST_F(PreloadTest, WhatIsMappedOverTheMemoryIsDiscardedAsUsual) {
  std::string expected = Content();
  expected.replace(5 * kPageSize, kPageSize, kPageSize, '\0');
  ExpectBytes(Run(Memfd(), "memfd", {"reuse"}), expected);
}

TEST_F(PreloadTest, ProgramThatNeverMapsItIsTold) {
  const Outcome outcome = Run("FAULTLINE_PRELOAD_MEMFD=4096", "anonymous", {}, kPageSize);
  EXPECT_EQ(outcome.status, 0);
  EXPECT_NE(outcome.error.find("has ended without the mapping"), std::string::npos)
      << outcome.error;
}

TEST_F(PreloadTest, WrongVariablesEndTheProgramAtOnce) {
  for (const auto& [choice, message] :
       {std::pair{"FAULTLINE_PRELOAD_MEMFD=5", "FAULTLINE_PRELOAD_MEMFD is \"5\"; write"},
        {"FAULTLINE_PRELOAD_OFFSET=0", "set one of FAULTLINE_PRELOAD_PATH=FILE"},
        {"FAULTLINE_PRELOAD_MEMFD=99999999999TiB", "write a multiple of 4096 bytes"}}) {
    const Outcome outcome = Run(choice, "anonymous");
    EXPECT_TRUE(WIFEXITED(outcome.status) && WEXITSTATUS(outcome.status) == 64) << outcome.status;
    EXPECT_NE(outcome.error.find(message), std::string::npos) << outcome.error;
  }
}

TEST(PreloadEnvironment, OnlyTheLibraryIsTakenOutOfTheList) {
  for (const auto& [before, after] : {std::pair{"/a/b.so:/x/us.so /c.so", "/a/b.so:/c.so"},
                                      {"us.so:/a.so", "/a.so"},
                                      {"/notus.so", "/notus.so"}}) {
    setenv("LD_PRELOAD", before, 1);
    CleanEnvironment("/y/us.so");
    EXPECT_STREQ(getenv("LD_PRELOAD"), after);
  }
  setenv("LD_PRELOAD", "/y/us.so", 1);
  CleanEnvironment("/y/us.so");
  EXPECT_EQ(getenv("LD_PRELOAD"), nullptr);
}

}  // namespace
}  // namespace faultline
