// SPDX-License-Identifier: Apache-2.0
#include "client/attach/handover_socket.h"

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <vector>

#include "client/attach/test_peer.h"

namespace faultline {
namespace {

class ListeningSocketTest : public testing::Test {
 protected:
  ListeningSocketTest() {
    std::string name = absl::StrCat(testing::TempDir(), "/handoverXXXXXX");
    folder_ = mkdtemp(name.data());
    path_ = absl::StrCat(folder_, "/s");
  }
  ~ListeningSocketTest() override { std::filesystem::remove_all(folder_); }

  std::string folder_;
  std::string path_;
};

TEST_F(ListeningSocketTest, HasTheModeThatWasAskedFor) {
  for (const mode_t mode : {0600, 0660, 0666}) {
    absl::StatusOr<ListeningSocket> socket = ListeningSocket::Open(path_, mode);
    ASSERT_TRUE(socket.ok()) << socket.status();
    struct stat info;
    ASSERT_EQ(stat(path_.c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, mode);
  }
}

TEST_F(ListeningSocketTest, HasTheOwnerThatWasAskedFor) {
  if (geteuid() != 0) GTEST_SKIP() << "only root gives a socket away";
  absl::StatusOr<ListeningSocket> socket =
      ListeningSocket::Open(path_, 0660, {.user = 65534, .group = 7});
  ASSERT_TRUE(socket.ok()) << socket.status();
  struct stat info;
  ASSERT_EQ(stat(path_.c_str(), &info), 0);
  EXPECT_EQ(info.st_uid, 65534u);
  EXPECT_EQ(info.st_gid, 7u);
  EXPECT_EQ(info.st_mode & 0777, mode_t{0660});
}

TEST_F(ListeningSocketTest, SocketInUseIsAnError) {
  absl::StatusOr<ListeningSocket> first = ListeningSocket::Open(path_, 0600);
  ASSERT_TRUE(first.ok()) << first.status();
  absl::StatusOr<ListeningSocket> second = ListeningSocket::Open(path_, 0600);
  EXPECT_EQ(second.status().message(),
            absl::StrCat("another process listens on ", path_, "; stop it or choose another path"));
  TestPeer peer(path_);  // the first still has its path
}

TEST_F(ListeningSocketTest, SocketOfADeadAgentIsReplaced) {
  const pid_t child = fork();
  if (child == 0) {
    absl::StatusOr<ListeningSocket> socket = ListeningSocket::Open(path_, 0600);
    _exit(socket.ok() ? 0 : 1);  // without removing the path
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_EQ(status, 0);
  ASSERT_TRUE(std::filesystem::exists(path_));
  absl::StatusOr<ListeningSocket> socket = ListeningSocket::Open(path_, 0600);
  EXPECT_TRUE(socket.ok()) << socket.status();
}

TEST_F(ListeningSocketTest, OtherFilesAreNotReplaced) {
  ASSERT_TRUE(std::filesystem::create_directory(path_));
  absl::StatusOr<ListeningSocket> socket = ListeningSocket::Open(path_, 0600);
  EXPECT_EQ(socket.status().message(),
            absl::StrCat(path_, " exists and is no socket; remove it or choose another path"));
}

TEST_F(ListeningSocketTest, CreatesOneMissingFolderAndNoMore) {
  absl::StatusOr<ListeningSocket> one =
      ListeningSocket::Open(absl::StrCat(folder_, "/new/s"), 0600);
  EXPECT_TRUE(one.ok()) << one.status();
  absl::StatusOr<ListeningSocket> two =
      ListeningSocket::Open(absl::StrCat(folder_, "/a/b/s"), 0600);
  EXPECT_EQ(two.status().message(), absl::StrCat("cannot create the socket's folder ", folder_,
                                                 "/a/b: No such file or directory"));
}

TEST_F(ListeningSocketTest, PathsThatFitNoSocketAreRefused) {
  for (const size_t length : {0, 108}) {
    absl::StatusOr<ListeningSocket> socket = ListeningSocket::Open(std::string(length, 'p'), 0600);
    EXPECT_TRUE(absl::StartsWith(socket.status().message(), "a socket's path has 1 to 107 bytes"))
        << socket.status();
  }
}

TEST_F(ListeningSocketTest, LeavesThePathToWhoeverTookIt) {
  absl::StatusOr<ListeningSocket> old = ListeningSocket::Open(path_, 0600);
  ASSERT_TRUE(old.ok()) << old.status();
  const std::string aside = absl::StrCat(folder_, "/aside");  // so that the inode stays in use
  std::filesystem::rename(path_, aside);
  absl::StatusOr<ListeningSocket> next = ListeningSocket::Open(path_, 0600);
  ASSERT_TRUE(next.ok()) << next.status();
  { const ListeningSocket gone = *std::move(old); }
  TestPeer peer(path_);
}

// What a service manager has opened stays its own: it is listened on again by the next agent.
TEST_F(ListeningSocketTest, TakesASocketOverAndLeavesItsPath) {
  absl::StatusOr<ListeningSocket> opened = ListeningSocket::Open(path_, 0600);
  ASSERT_TRUE(opened.ok()) << opened.status();
  {
    absl::StatusOr<ListeningSocket> taken = ListeningSocket::TakeOver({dup(opened->fd())}, path_);
    ASSERT_TRUE(taken.ok()) << taken.status();
    EXPECT_NE(fcntl(taken->fd(), F_GETFL) & O_NONBLOCK, 0);
  }
  TestPeer peer(path_);
}

TEST_F(ListeningSocketTest, TakesNoOtherSocketOver) {
  absl::StatusOr<ListeningSocket> opened = ListeningSocket::Open(path_, 0600);
  ASSERT_TRUE(opened.ok()) << opened.status();
  const auto why = [&](std::vector<int> sockets, const std::string& path) {
    return std::string(ListeningSocket::TakeOver(sockets, path).status().message());
  };
  EXPECT_EQ(why({dup(opened->fd())}, "/other"),
            absl::StrCat("the service manager has passed a socket that listens at ", path_,
                         ", but --socket is /other; make ListenStream= and --socket the same"));
  EXPECT_EQ(
      why({dup(opened->fd()), dup(opened->fd())}, path_),
      absl::StrCat("the service manager has passed 2 sockets; the agent takes the one at ", path_));
  for (const int fd : {open("/dev/null", O_RDONLY), socket(AF_UNIX, SOCK_STREAM, 0)}) {
    EXPECT_TRUE(absl::StrContains(why({fd}, path_), "that is no listening Unix socket"));
    EXPECT_EQ(fcntl(fd, F_GETFD), -1);  // closed
  }
}

}  // namespace
}  // namespace faultline
