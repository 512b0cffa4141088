// SPDX-License-Identifier: Apache-2.0
//
// Whom a peer may speak for. Real processes of several users, so most of it needs root.
#include "client/attach/peer_process.h"

#include <absl/strings/match.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace faultline {
namespace {

constexpr uid_t kOwner = 4711, kOther = 4712;

// A child of this process that does nothing, as the users given. Killed at the end.
class Child {
 public:
  Child(uid_t real, uid_t effective, uid_t saved) {
    int ends[2];
    EXPECT_EQ(pipe(ends), 0);
    pid_ = fork();
    if (pid_ == 0) {
      const bool same = real == getuid() && effective == geteuid();
      if (!same && setresuid(real, effective, saved) != 0) _exit(1);
      close(ends[1]);
      while (true) pause();
    }
    // Ends when the child is who it is to be.
    close(ends[1]);
    char byte;
    EXPECT_EQ(read(ends[0], &byte, 1), 0);
    close(ends[0]);
  }
  explicit Child(uid_t user = getuid()) : Child(user, user, user) {}
  ~Child() { End(); }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  pid_t pid() const { return pid_; }
  UniqueFd OpenPidfd() const {
    return UniqueFd(static_cast<int>(syscall(SYS_pidfd_open, pid_, 0)));
  }
  void End() {
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }

 private:
  pid_t pid_;
};

PeerProcess PeerWhoIs(uid_t user) {
  PeerProcess peer;
  peer.pid = getpid();
  peer.user = user;
  return peer;
}

bool MayNot(const absl::StatusOr<PeerProcess>& target) {
  return absl::IsPermissionDenied(target.status()) &&
         absl::StrContains(target.status().message(), "do it as root or as the user");
}

TEST(HandoverTarget, IsTheProcessOfThePidfd) {
  const Child child;
  absl::StatusOr<PeerProcess> target = HandoverTarget(PeerWhoIs(getuid()), child.OpenPidfd());
  ASSERT_TRUE(target.ok()) << target.status();
  EXPECT_EQ(target->pid, child.pid());
  EXPECT_FALSE(target->HasEnded());
}

TEST(HandoverTarget, OnlyRootAndItsOwnUserSpeakForAProcess) {
  if (getuid() != 0) GTEST_SKIP() << "becoming another user needs root";
  const Child child(kOwner);
  EXPECT_TRUE(HandoverTarget(PeerWhoIs(0), child.OpenPidfd()).ok());
  EXPECT_TRUE(HandoverTarget(PeerWhoIs(kOwner), child.OpenPidfd()).ok());
  EXPECT_TRUE(MayNot(HandoverTarget(PeerWhoIs(kOther), child.OpenPidfd())));
  const Child of_root;
  EXPECT_TRUE(MayNot(HandoverTarget(PeerWhoIs(kOwner), of_root.OpenPidfd())));
}

// As in a program that has changed its user, or that is set-user-id.
TEST(HandoverTarget, ProcessOfSeveralUsersIsForRootOnly) {
  if (getuid() != 0) GTEST_SKIP() << "becoming another user needs root";
  const Child effective(kOwner, kOther, kOwner), saved(kOwner, kOwner, kOther),
      real(kOther, kOwner, kOwner);
  for (const Child* child : {&effective, &saved, &real}) {
    EXPECT_TRUE(MayNot(HandoverTarget(PeerWhoIs(kOwner), child->OpenPidfd())));
    EXPECT_TRUE(HandoverTarget(PeerWhoIs(0), child->OpenPidfd()).ok());
  }
}

TEST(HandoverTarget, OtherDescriptorsAreRefused) {
  EXPECT_EQ(HandoverTarget(PeerWhoIs(0), UniqueFd(dup(STDERR_FILENO))).status().message(),
            "the descriptor that \"pidfd\" names is no pidfd");
}

TEST(HandoverTarget, ProcessThatHasEndedIsRefused) {
  Child child;
  UniqueFd pidfd = child.OpenPidfd();
  child.End();
  EXPECT_EQ(HandoverTarget(PeerWhoIs(getuid()), std::move(pidfd)).status().message(),
            "the process whose memory is handed over has ended");
}

}  // namespace
}  // namespace faultline
