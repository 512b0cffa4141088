// SPDX-License-Identifier: Apache-2.0
//
// Real processes, which check for themselves that nothing has happened to them.
#include "client/attach/syscall_injection.h"

#include <absl/strings/match.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/ptrace.h>

#include "client/attach/test_target.h"

namespace faultline {
namespace {

constexpr char kMemory[] = "anon:4096";
constexpr absl::Duration kPatience = absl::Minutes(5);
constexpr int kInjections = 50;

absl::StatusOr<int64_t> AskForPid(pid_t pid) {
  int64_t answer = 0;
  const absl::StatusOr<InjectionTimes> times =
      InjectSyscalls(pid, kPatience, [&](StoppedThread& thread) {
        absl::StatusOr<int64_t> result = thread.Call(SYS_getpid, {});
        if (result.ok()) answer = *result;
        return result.status();
      });
  if (!times.ok()) return times.status();
  return answer;
}

class InjectionTest : public testing::TestWithParam<std::vector<std::string>> {};

TEST_P(InjectionTest, ThreadMakesTheCallAndGoesOnUnharmed) {
  std::vector<std::string> args = GetParam();
  args.insert(args.begin(), kMemory);
  TestTarget target(args);
  for (int i = 0; i < kInjections; ++i) {
    const absl::StatusOr<int64_t> answer = AskForPid(target.pid());
    ASSERT_TRUE(answer.ok()) << answer.status();
    ASSERT_EQ(*answer, target.pid());
  }
  EXPECT_EQ(target.StatusField("TracerPid:\t"), "0");
  EXPECT_EQ(target.Release(), "unharmed");
  EXPECT_EQ(target.ReadMemory(), std::string(4096, '\0'));
}

TEST_P(InjectionTest, WhatIsLentToACallIsPutBack) {
  std::vector<std::string> args = GetParam();
  args.insert(args.begin(), kMemory);
  TestTarget target(args);
  for (int i = 0; i < kInjections; ++i) {
    int64_t found = 0, missing = 0;
    const auto times = InjectSyscalls(target.pid(), kPatience, [&](StoppedThread& thread) {
      const absl::StatusOr<uint64_t> path = thread.Lend("/proc/self/stat");
      if (!path.ok()) return path.status();
      found = thread.Call(SYS_access, {*path, R_OK}).value_or(-1);
      missing = thread.Call(SYS_access, {*path + 6, R_OK}).value_or(-1);  // "self/stat"
      return absl::OkStatus();
    });
    ASSERT_TRUE(times.ok()) << times.status();
    EXPECT_EQ(found, 0);
    EXPECT_EQ(missing, -ENOENT);
    EXPECT_GT(times->altered, absl::ZeroDuration());
    EXPECT_GE(times->stopped, times->altered);
  }
  EXPECT_EQ(target.Release(), "unharmed");
}

std::string NameOf(const testing::TestParamInfo<std::vector<std::string>>& info) {
  std::string name;
  for (const std::string& word : info.param) name += word;
  return name;
}

INSTANTIATE_TEST_SUITE_P(Waits, InjectionTest,
                         testing::Values(std::vector<std::string>{"ppoll"},
                                         std::vector<std::string>{"nanosleep"},
                                         std::vector<std::string>{"futex"},
                                         std::vector<std::string>{"busy"},
                                         std::vector<std::string>{"ppoll", "signals"},
                                         std::vector<std::string>{"nanosleep", "signals"},
                                         std::vector<std::string>{"futex", "signals", "threads"},
                                         std::vector<std::string>{"busy", "signals", "threads"},
                                         std::vector<std::string>{"busy", "notrap"},
                                         std::vector<std::string>{"ppoll", "threads"}),
                         NameOf);

// The error of the body comes out, and leaves no trace either.
TEST(Injection, ErrorsOfTheBodyComeOut) {
  TestTarget target({kMemory, "ppoll"});
  const auto times = InjectSyscalls(target.pid(), kPatience, [](StoppedThread& thread) {
    EXPECT_TRUE(thread.Call(SYS_getppid, {}).ok());
    return absl::AbortedError("no");
  });
  EXPECT_EQ(times.status().message(), "no");
  EXPECT_EQ(target.Release(), "unharmed");
}

TEST(Injection, StoppedProcessStaysStopped) {
  TestTarget target({kMemory, "ppoll"});
  ASSERT_EQ(kill(target.pid(), SIGSTOP), 0);
  while (target.State() != "T (stopped)") usleep(1000);
  EXPECT_EQ(AskForPid(target.pid()).value_or(-1), target.pid());
  // It is on its way back to there, in the kernel.
  while (target.State() != "T (stopped)") usleep(1000);
  ASSERT_EQ(kill(target.pid(), SIGCONT), 0);
  EXPECT_EQ(target.Release(), "unharmed");
}

TEST(Injection, SeccompFilterIsSuspendedForAsLong) {
  if (getuid() != 0) GTEST_SKIP() << "needs CAP_SYS_ADMIN";
  TestTarget target({kMemory, "ppoll", "sandbox"});
  int64_t fd = -1;
  const auto times = InjectSyscalls(target.pid(), kPatience, [&](StoppedThread& thread) {
    const absl::StatusOr<uint64_t> path = thread.Lend("/dev/null");
    fd = thread.Call(SYS_openat, {static_cast<uint64_t>(AT_FDCWD), *path, O_RDONLY}).value_or(-1);
    return thread.Call(SYS_close, {static_cast<uint64_t>(fd)}).status();
  });
  ASSERT_TRUE(times.ok()) << times.status();
  EXPECT_GT(fd, 2);
  EXPECT_EQ(target.StatusField("Seccomp:\t"), "2");
  EXPECT_EQ(target.Release(), "unharmed");
}

TEST(Injection, ProcessThatIsTracedIsRefused) {
  TestTarget target({kMemory, "ppoll"});
  ASSERT_EQ(ptrace(PTRACE_SEIZE, target.pid(), 0, 0), 0);
  EXPECT_TRUE(absl::StrContains(AskForPid(target.pid()).status().message(),
                                absl::StrCat("is being traced by process ", getpid())));
  ASSERT_EQ(ptrace(PTRACE_INTERRUPT, target.pid(), 0, 0), 0);
  ASSERT_EQ(waitpid(target.pid(), nullptr, 0), target.pid());
  ASSERT_EQ(ptrace(PTRACE_DETACH, target.pid(), 0, 0), 0);
  EXPECT_EQ(target.Release(), "unharmed");
}

TEST(Injection, ProcessThatHasEndedIsNotFound) {
  TestTarget target({kMemory, "ppoll"});
  const pid_t pid = target.pid();
  kill(pid, SIGKILL);
  while (target.State()[0] != 'Z') usleep(1000);
  EXPECT_TRUE(absl::IsNotFound(AskForPid(pid).status())) << AskForPid(pid).status();
  target.Kill();
  EXPECT_TRUE(absl::IsNotFound(AskForPid(pid).status())) << AskForPid(pid).status();
}

// A thread that does not stop in time is let go by the end of its tracer.
TEST(Injection, PatienceThatEndsLeavesTheTargetUnharmed) {
  TestTarget target({kMemory, "ppoll"});
  int late = 0;
  for (int i = 0; i < kInjections; ++i) {
    const auto times =
        InjectSyscalls(target.pid(), absl::ZeroDuration(),
                       [](StoppedThread& thread) { return thread.Call(SYS_getpid, {}).status(); });
    if (times.ok()) continue;
    EXPECT_TRUE(absl::IsDeadlineExceeded(times.status())) << times.status();
    ++late;
  }
  EXPECT_GT(late, 0);
  EXPECT_EQ(target.StatusField("TracerPid:\t"), "0");
  EXPECT_EQ(target.Release(), "unharmed");
}

// It dies where it would have made the call.
TEST(Injection, ProcessThatEndsMeanwhileIsNotFound) {
  TestTarget target({kMemory, "ppoll"});
  const auto times = InjectSyscalls(target.pid(), kPatience, [&](StoppedThread& thread) {
    kill(target.pid(), SIGKILL);
    return thread.Call(SYS_getpid, {}).status();
  });
  EXPECT_TRUE(absl::IsNotFound(times.status())) << times.status();
}

TEST(Injection, ThirtyTwoBitCodeIsRefused) {
  TestTarget target({kMemory, "compat"});
  // It gets there a little after it has said that it is ready.
  absl::Status status;
  while ((status = AskForPid(target.pid()).status()).ok()) usleep(1000);
  EXPECT_TRUE(absl::StrContains(status.message(), "is a 32-bit program")) << status;
  EXPECT_EQ(target.StatusField("TracerPid:\t"), "0");
  EXPECT_EQ(target.State(), "R (running)");
}

TEST(Injection, StrangersMayNotTrace) {
  if (getuid() != 0) GTEST_SKIP() << "becoming another user needs root";
  TestTarget target({kMemory, "ppoll"});
  const pid_t stranger = fork();
  if (stranger == 0) {
    if (setgid(4711) != 0 || setuid(4711) != 0) _exit(1);
    const absl::Status status = AskForPid(target.pid()).status();
    _exit(absl::IsPermissionDenied(status) && absl::StrContains(status.message(), "as root") ? 0
                                                                                             : 2);
  }
  int status = 0;
  ASSERT_EQ(waitpid(stranger, &status, 0), stranger);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(target.Release(), "unharmed");
}

// Whoever injects is killed when it has stopped the target, and before it has altered anything.
TEST(Injection, TargetOutlivesATracerThatIsKilled) {
  TestTarget target({kMemory, "ppoll"});
  for (int i = 0; i < 10; ++i) {
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    const pid_t tracer = fork();
    if (tracer == 0) {
      InjectSyscalls(target.pid(), kPatience, [&](StoppedThread&) {
        if (write(ends[1], "x", 1) != 1) _exit(1);
        while (true) pause();
        return absl::OkStatus();
      }).IgnoreError();
      _exit(1);
    }
    char byte;
    ASSERT_EQ(read(ends[0], &byte, 1), 1);
    EXPECT_EQ(target.State(), "t (tracing stop)");
    ASSERT_EQ(kill(tracer, SIGKILL), 0);
    ASSERT_EQ(waitpid(tracer, nullptr, 0), tracer);
    close(ends[0]);
    close(ends[1]);
    while (target.State()[0] != 'S') usleep(1000);
    EXPECT_EQ(target.StatusField("TracerPid:\t"), "0");
  }
  EXPECT_EQ(target.Release(), "unharmed");
}

}  // namespace
}  // namespace faultline
