// SPDX-License-Identifier: Apache-2.0
//
// The real `faultline` against a real `faultline-server`.
#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <absl/time/clock.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <thread>

#include <nlohmann/json.hpp>

#include "client/remote/page_server.h"

extern char** environ;

namespace faultline {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

std::string ReadFile(const std::string& path) {
  std::string bytes(fs::file_size(path), '\0');
  std::ifstream(path, std::ios::binary)
      .read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  return bytes;
}

void WriteFile(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

std::string RandomBytes(size_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::string bytes(count, '\0');
  for (char& c : bytes) c = static_cast<char>(random());
  return bytes;
}

// Starts `arguments` with its output going to files.
pid_t Spawn(const std::vector<std::string>& arguments, const std::string& out,
            const std::string& error) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  const int flags = O_WRONLY | O_CREAT | O_TRUNC;
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, out.c_str(), flags, 0644);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, error.c_str(), flags, 0644);
  std::vector<char*> argv;
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  pid_t pid = 0;
  EXPECT_EQ(posix_spawn(&pid, argv[0], &actions, nullptr, argv.data(), environ), 0);
  posix_spawn_file_actions_destroy(&actions);
  return pid;
}

int Wait(pid_t pid) {
  int status = 0;
  EXPECT_EQ(waitpid(pid, &status, 0), pid);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

struct Result {
  int code;
  std::string out;
  std::string error;
};

class CliTest : public testing::Test {
 protected:
  CliTest() {
    std::string path = absl::StrCat(testing::TempDir(), "/cli_XXXXXX");
    directory_ = mkdtemp(path.data());
    address_ = absl::StrCat("unix:", Path("server.sock"));
    server_ = Spawn(
        {FAULTLINE_SERVER_PROGRAM, "--listen=" + address_, "--store=rocksdb:" + Path("store")},
        Path("server.out"), Path("server.err"));
    // The server has no other sign of being ready than that it answers.
    const absl::Time end = absl::Now() + absl::Seconds(60);
    while (Run({"server", "status"}).code != 0 && absl::Now() < end) {
    }
  }
  ~CliTest() override {
    kill(server_, SIGCONT);
    kill(server_, SIGKILL);
    Wait(server_);
    if (HasFailure()) std::fputs(ReadFile(Path("server.err")).c_str(), stderr);
    fs::remove_all(directory_);
  }

  std::string Path(const std::string& name) const { return absl::StrCat(directory_, "/", name); }

  pid_t Start(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {FAULTLINE_PROGRAM, "--server=" + address_});
    return Spawn(arguments, Path("out"), Path("error"));
  }
  Result Finish(pid_t pid) {
    const int code = Wait(pid);
    return {code, ReadFile(Path("out")), ReadFile(Path("error"))};
  }
  Result Run(std::vector<std::string> arguments) { return Finish(Start(std::move(arguments))); }
  Json RunJson(std::vector<std::string> arguments) {
    arguments.push_back("--output=json");
    const Result result = Run(std::move(arguments));
    EXPECT_EQ(result.code, 0) << result.error;
    const Json json = Json::parse(result.out, nullptr, false);
    EXPECT_FALSE(json.is_discarded()) << result.out;
    return json;
  }
  void ExpectFails(std::vector<std::string> arguments, int code, const std::string& message) {
    const Result result = Run(std::move(arguments));
    EXPECT_EQ(result.code, code) << result.error;
    EXPECT_TRUE(absl::StrContains(result.error, message)) << result.error;
    EXPECT_EQ(result.out, "");
  }
  // A volume's content, by way of an export.
  std::string Content(const std::string& volume) {
    const Result result = Run({"volume", "export", volume, Path("export"), "--force"});
    EXPECT_EQ(result.code, 0) << result.error;
    return ReadFile(Path("export"));
  }

  // As an agent does it.
  void MergeWorkingSet(const std::string& volume,
                       const std::vector<std::pair<uint64_t, uint64_t>>& runs) {
    const auto connection = PageServer::Create({.address = address_});
    ASSERT_TRUE(connection.ok()) << connection.status();
    const absl::Time deadline = absl::Now() + absl::Minutes(1);
    absl::StatusOr<WorkingSet> set = (*connection)->GetWorkingSet(volume, deadline);
    ASSERT_TRUE(set.ok()) << set.status();
    for (const auto& [first, count] : runs) {
      for (uint64_t i = 0; i < count; ++i) set->Insert(PageIndex(first + i));
    }
    EXPECT_EQ((*connection)->MergeWorkingSet(volume, *set, deadline), absl::OkStatus());
  }

  std::string directory_;
  std::string address_;
  pid_t server_ = 0;
};

TEST_F(CliTest, VolumeLivesItsWholeLife) {
  EXPECT_EQ(Run({"volume", "create", "disk", "--size=1MiB", "--durability=interval"}).out,
            "created volume disk of 1MiB\n");
  WriteFile(Path("image"), RandomBytes(1 << 20, 1));
  ASSERT_EQ(Run({"volume", "import", "disk", Path("image")}).code, 0);
  EXPECT_EQ(Run({"volume", "snapshot", "disk", "monday"}).out,
            "froze the content of volume disk as snapshot monday\n");
  EXPECT_EQ(Run({"volume", "clone", "monday", "copy"}).out,
            "created volume copy as a clone of snapshot monday\n");
  EXPECT_EQ(Run({"volume", "trim", "copy", "--offset=4KiB", "--length=8KiB"}).out,
            "trimmed 8KiB of volume copy from byte 4096\n");
  std::string trimmed = ReadFile(Path("image"));
  EXPECT_TRUE(Content("monday") == trimmed);
  memset(&trimmed[4096], 0, 8192);
  EXPECT_TRUE(Content("copy") == trimmed);

  const Json stat = RunJson({"volume", "stat", "copy"});
  EXPECT_EQ(stat["name"], "copy");
  EXPECT_EQ(stat["kind"], "volume");
  EXPECT_EQ(stat["size_bytes"], 1 << 20);
  EXPECT_EQ(stat["parent"], "monday");
  EXPECT_EQ(RunJson({"volume", "stat", "disk"})["durability"], "interval");
  const Json list = RunJson({"volume", "list"});
  ASSERT_EQ(list.size(), 3u);
  EXPECT_EQ(list[0]["name"], "copy");
  EXPECT_EQ(list[2]["kind"], "snapshot");
  EXPECT_EQ(RunJson({"server", "status"})["volumes"], 3);
  EXPECT_TRUE(absl::StartsWith(Run({"volume", "list"}).out, "NAME "));

  for (const char* name : {"copy", "disk", "monday"}) {
    EXPECT_EQ(Run({"volume", "delete", name}).out, absl::StrCat("deleted ", name, "\n"));
  }
  EXPECT_EQ(RunJson({"volume", "list"}).size(), 0u);
}

TEST_F(CliTest, WorkingSetOfAVolumeIsShownAndCleared) {
  ASSERT_EQ(Run({"volume", "create", "disk", "--size=1MiB"}).code, 0);
  EXPECT_EQ(Run({"volume", "working-set", "disk"}).out,
            "name:   disk\n"
            "pages:  0\n"
            "runs:   0\n"
            "bytes:  0B\n");
  EXPECT_EQ(RunJson({"volume", "working-set", "disk"}).dump(),
            R"({"bytes":0,"name":"disk","pages":0,"runs":0})");
  EXPECT_EQ(Run({"volume", "working-set", "disk", "--list"}).out, "FIRST  COUNT\n");

  MergeWorkingSet("disk", {{3, 2}, {100, 50}});
  EXPECT_EQ(Run({"volume", "working-set", "disk"}).out,
            "name:   disk\n"
            "pages:  52\n"
            "runs:   2\n"
            "bytes:  208KiB\n");
  EXPECT_EQ(Run({"volume", "working-set", "disk", "--list"}).out,
            "FIRST  COUNT\n"
            "    3      2\n"
            "  100     50\n");
  EXPECT_EQ(RunJson({"volume", "working-set", "disk", "--list"}).dump(),
            R"({"bytes":212992,"list":[{"count":2,"first":3},{"count":50,"first":100}],)"
            R"("name":"disk","pages":52,"runs":2})");

  EXPECT_EQ(Run({"volume", "working-set", "disk", "--clear"}).out,
            "cleared the working set of disk\n");
  EXPECT_EQ(RunJson({"volume", "working-set", "disk"})["pages"], 0);
  EXPECT_EQ(RunJson({"volume", "working-set", "disk", "--clear"})["cleared"], "disk");
  ExpectFails({"volume", "working-set", "nowhere"}, 1, "nowhere");
  ExpectFails({"volume", "working-set", "nowhere", "--clear"}, 1, "nowhere");
  ExpectFails({"volume", "working-set", "disk", "--clear", "--list"}, 2, "--list");
}

TEST_F(CliTest, ExportedImageEqualsTheImportedOne) {
  std::string sparse(40 << 20, '\0');
  sparse.replace(5 << 20, 3 << 20, RandomBytes(3 << 20, 2));
  sparse.replace((30 << 20) + 77, 5, "bytes");
  const std::vector<std::string> images = {
      std::string("x"),         RandomBytes(4096, 3),           RandomBytes((2 << 20) + 1, 4),
      std::string(10'000, 'a'), sparse + RandomBytes(1'234, 5), std::string(12'288, '\0')};
  int number = 0;
  for (const std::string& image : images) {
    for (const char* codec : {"raw", "lz4", "zstd"}) {
      const std::string volume = absl::StrCat("v", number++);
      WriteFile(Path("image"), image);
      const Result imported =
          Run({"volume", "import", volume, Path("image"), absl::StrCat("--codec=", codec)});
      ASSERT_EQ(imported.code, 0) << imported.error;
      EXPECT_EQ(RunJson({"volume", "stat", volume})["size_bytes"], image.size());
      EXPECT_TRUE(Content(volume) == image) << volume;
      const Result piped = Run({"volume", "export", volume, "-"});
      EXPECT_EQ(piped.code, 0) << piped.error;
      EXPECT_TRUE(piped.out == image) << volume;
    }
  }
}

TEST_F(CliTest, ExportOfASparseVolumeIsSparse) {
  ASSERT_EQ(Run({"volume", "create", "empty", "--size=1GiB"}).code, 0);
  const Json json = RunJson({"volume", "export", "empty", Path("image")});
  EXPECT_EQ(json["size_bytes"], 1 << 30);
  EXPECT_EQ(json["data_bytes"], 0);
  EXPECT_EQ(fs::file_size(Path("image")), 1u << 30);
  struct stat status;
  ASSERT_EQ(stat(Path("image").c_str(), &status), 0);
  EXPECT_LT(status.st_blocks * 512, 1 << 20);
}

TEST_F(CliTest, ImportReplacesOnlyWhenTold) {
  WriteFile(Path("first"), RandomBytes(9'000, 6));
  WriteFile(Path("second"), RandomBytes(5'000, 7));
  ASSERT_EQ(Run({"volume", "import", "disk", Path("first")}).code, 0);
  const Result refused = Run({"volume", "import", "disk", Path("second")});
  EXPECT_EQ(refused.code, 1);
  EXPECT_TRUE(absl::StrContains(refused.error, "disk")) << refused.error;
  EXPECT_TRUE(Content("disk") == ReadFile(Path("first")));
  const Result replaced = Run({"volume", "import", "disk", Path("second"), "--replace"});
  ASSERT_EQ(replaced.code, 0) << replaced.error;
  EXPECT_TRUE(absl::StartsWith(Content("disk"), ReadFile(Path("second"))));
}

// The server is stopped until the file has shrunk: no more of it can have been read by then than
// fits into the buffers on the way.
TEST_F(CliTest, FileThatShrinksDuringItsImportLeavesTheVolumeAsItWas) {
  const std::string before = RandomBytes(20'000, 8) + std::string((96 << 20) - 20'000, '\0');
  WriteFile(Path("before"), before);
  ASSERT_EQ(Run({"volume", "import", "disk", Path("before")}).code, 0);
  WriteFile(Path("shrinks"), RandomBytes(96 << 20, 9));
  ASSERT_EQ(kill(server_, SIGSTOP), 0);
  const pid_t import =
      Start({"volume", "import", "disk", Path("shrinks"), "--replace", "--codec=raw"});
  // Once the import has found the file's end, its position says so.
  const auto has_size = [&] {
    const std::string process = absl::StrCat("/proc/", import);
    std::error_code gone;
    for (const auto& fd : fs::directory_iterator(process + "/fd", gone)) {
      if (fs::read_symlink(fd.path(), gone) != Path("shrinks")) continue;
      std::ifstream info(absl::StrCat(process, "/fdinfo/", fd.path().filename().string()));
      std::string word;
      uint64_t position = 0;
      return static_cast<bool>(info >> word >> position) && position == 96 << 20;
    }
    return false;
  };
  const absl::Time end = absl::Now() + absl::Seconds(60);
  while (!has_size() && absl::Now() < end) std::this_thread::yield();
  fs::resize_file(Path("shrinks"), 1000);
  ASSERT_EQ(kill(server_, SIGCONT), 0);
  const Result result = Finish(import);
  EXPECT_EQ(result.code, 1);
  EXPECT_TRUE(absl::StrContains(result.error, "while it was read; the volume is as it was"))
      << result.error;
  EXPECT_TRUE(Content("disk") == before);
}

TEST_F(CliTest, ErrorsSayWhatHappenedOnWhatAndWhatToDo) {
  ExpectFails({"volume", "stat", "nowhere"}, 1, "nowhere");
  ExpectFails({"volume", "export", "nowhere", Path("image")}, 1, "nowhere");
  EXPECT_FALSE(fs::exists(Path("image")));
  ExpectFails({"volume", "import", "disk", Path("none")}, 1,
              absl::StrCat("faultline: cannot open ", Path("none"), ": No such file or directory"));
  ExpectFails({"volume", "import", "disk", directory_}, 1,
              absl::StrCat(directory_, " is a directory; an import needs a raw image"));
  ASSERT_EQ(Run({"volume", "create", "disk", "--size=4KiB"}).code, 0);
  ExpectFails({"volume", "create", "disk", "--size=4KiB"}, 1, "disk");
  WriteFile(Path("precious"), "x");
  ExpectFails({"volume", "export", "disk", Path("precious")}, 1,
              absl::StrCat(Path("precious"), " is there already; add --force to overwrite it"));
  EXPECT_EQ(ReadFile(Path("precious")), "x");
}

TEST_F(CliTest, MissingServerIsNamedWithWhatToCheck) {
  const std::string nobody = absl::StrCat("unix:", Path("nobody"));
  const Result result = Run({"volume", "list", "--server=" + nobody});
  EXPECT_EQ(result.code, 1);
  EXPECT_TRUE(absl::StrContains(
      result.error, absl::StrCat("faultline: cannot reach the page server at ", nobody)))
      << result.error;
  EXPECT_TRUE(absl::StrContains(result.error,
                                "check that faultline-server runs and listens on that address"))
      << result.error;
}

TEST_F(CliTest, WrongUsageIsExitStatusTwo) {
  ExpectFails({}, 2, "A subcommand is required");
  ExpectFails({"volume"}, 2, "A subcommand is required");
  ExpectFails({"volume", "create", "disk"}, 2, "--size is required");
  ExpectFails({"volume", "create", "disk", "--size=1Gb"}, 2, "1Gb");
  ExpectFails({"volume", "import", "disk", "file", "--codec=rar"}, 2,
              "unknown codec \"rar\"; known are raw, lz4 and zstd");
  ExpectFails({"volume", "trim", "disk", "--offset=1", "--length=4KiB"}, 2,
              "1 is no multiple of 4KiB");
  ExpectFails({"volume", "list", "--server=nowhere"}, 2,
              "\"nowhere\" is no server address; write host:port (127.0.0.1:7400), unix:path or ");
}

TEST_F(CliTest, HelpVersionAndCompletionNeedNoServer) {
  EXPECT_TRUE(absl::StartsWith(Run({"--version"}).out, "faultline "));
  for (const char* command : {"create", "list", "stat", "import", "export", "snapshot", "clone",
                              "trim", "working-set", "delete"}) {
    const Result help = Run({"volume", command, "--help"});
    EXPECT_EQ(help.code, 0);
    EXPECT_TRUE(absl::StrContains(help.out, "Example:  faultline ")) << command;
  }
  WriteFile(Path("script"), Run({"completion", "bash"}).out +
                                "COMP_WORDS=(faultline volume cr); COMP_CWORD=2; _faultline\n"
                                "echo ${COMPREPLY[@]}\n"
                                "COMP_WORDS=(faultline volume create disk --s); COMP_CWORD=4\n"
                                "compopt() { :; }; _faultline; echo ${COMPREPLY[@]}\n");
  ASSERT_EQ(Wait(Spawn({"/bin/bash", Path("script")}, Path("out"), Path("error"))), 0);
  EXPECT_EQ(ReadFile(Path("out")), "create\n--size= --server=\n") << ReadFile(Path("error"));
}

}  // namespace
}  // namespace faultline
