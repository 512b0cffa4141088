// SPDX-License-Identifier: Apache-2.0
//
// Owners that were fenced, and OSDs that are killed or hang, under load.
#include <absl/strings/ascii.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <thread>

#include "storage/rados_testing.h"

namespace faultline {
namespace {

using std::chrono::steady_clock;

// What the other process writes, in extents of their own.
constexpr uint64_t kFirstPages[] = {0, 640, 1280};
constexpr uint64_t kPagesOfAll = 64 * 1000;

constexpr char kWriterVariable[] = "FAULTLINE_RADOS_WRITER";
constexpr char kReaderVariable[] = "FAULTLINE_RADOS_READER";

// The other process: writes one version after another, and says which were acknowledged. After the
// first failure it tries some more, in extents that nobody has written, and says how that ended.
int WriteUntilFenced(const std::string& location) {
  auto store = OpenPageStore(location, RadosOptions());
  if (!store.ok() || !Own(**store).ok()) return 1;
  absl::Status status;
  for (uint64_t version = 1; status.ok(); ++version) {
    std::map<uint64_t, uint64_t> pages;
    for (const uint64_t page : kFirstPages) pages[page] = version;
    status = WriteLayer(**store, kLayer, pages);
    if (status.ok()) printf("acknowledged %lu\n", static_cast<unsigned long>(version));
    fflush(stdout);
  }
  for (uint64_t i = 0; i < 5; ++i) {
    status = WriteLayer(**store, kLayer, {{64 * (100 + i), 1}});
    printf("%s\n", status.ok() ? "wrote though it was fenced" : "refused");
  }
  fflush(stdout);
  return 0;
}

// The other process: reads as the owner what it has written, again and again, and says of each read
// when it began, until it finds something else, or nothing.
int ReadUntilFenced(const std::string& location) {
  auto store = OpenPageStore(location, RadosOptions());
  if (!store.ok() || !Own(**store).ok() || !WriteLayer(**store, kLayer, {{0, 1}}).ok()) return 1;
  while (true) {
    const auto began = steady_clock::now().time_since_epoch().count();
    const auto found = ReadLayer(**store, kLayer, Pages(0, 1));
    if (!found.ok() || !found->contains(0) || found->at(0) != PatternEncoded(0, 1)) break;
    printf("%ld\n", static_cast<long>(began));
    fflush(stdout);
  }
  printf("another\n");
  fflush(stdout);
  return 0;
}

class OtherProcess {
 public:
  OtherProcess(const char* variable, const std::string& location) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) abort();
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
    setenv(variable, location.c_str(), 1);
    char self[] = "/proc/self/exe";
    char* arguments[] = {self, nullptr};
    if (posix_spawn(&pid_, self, &actions, nullptr, arguments, environ) != 0) abort();
    unsetenv(variable);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    from_ = fdopen(ends[0], "r");
  }
  ~OtherProcess() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    fclose(from_);
  }
  OtherProcess(const OtherProcess&) = delete;
  OtherProcess& operator=(const OtherProcess&) = delete;

  // The next line that it says; empty at the end.
  std::string Line() {
    char line[256] = "";
    if (fgets(line, sizeof line, from_) == nullptr) return "";
    return std::string(line, strcspn(line, "\n"));
  }
  void Signal(int signal) { kill(pid_, signal); }

 private:
  pid_t pid_ = -1;
  FILE* from_ = nullptr;
};

// The version that all pages of a write have, of those of PatternEncoded() up to `most`.
uint64_t VersionOf(uint64_t page, const std::string& encoded, uint64_t from, uint64_t most) {
  for (uint64_t version = from; version <= most; ++version) {
    if (encoded == PatternEncoded(page, version)) return version;
  }
  return ~uint64_t{0};
}

TEST(RadosFencing, AFencedOwnerWritesNothingThatTheNextHasNotTouchedEither) {
  const std::string location = NewLocation();
  const auto before = OpenRados(location);
  ASSERT_STATUS_OK(Own(*before));
  ASSERT_STATUS_OK(WriteLayer(*before, kLayer, {{0, 1}, {64, 1}, {128, 1}}));
  const auto next = OpenRados(location);
  ASSERT_STATUS_OK(Own(*next));
  for (const uint64_t page : {6400, 0, 64, 128, 6401}) {
    EXPECT_TRUE(FailsWith(WriteLayer(*before, kLayer, {{page, 2}}), absl::StatusCode::kAborted,
                          "another process has taken it over"))
        << page;
  }
  EXPECT_EQ(before->Ownership(kLayer), 0u);
  EXPECT_NE(next->Ownership(kLayer), 0u);
  EXPECT_TRUE(SamePages(
      *ReadLayer(*next, kLayer, Pages(0, kPagesOfAll)),
      {{0, PatternEncoded(0, 1)}, {64, PatternEncoded(64, 1)}, {128, PatternEncoded(128, 1)}}));
}

TEST(RadosFencing, AFencedOwnerDoesNotSayThatNothingIsThereEither) {
  const std::string location = NewLocation();
  const auto before = OpenRados(location);
  ASSERT_STATUS_OK(Own(*before));
  EXPECT_TRUE(ReadLayer(*before, kLayer, Pages(0, 64))->empty());
  const auto next = OpenRados(location);
  ASSERT_STATUS_OK(Own(*next));
  ASSERT_STATUS_OK(WriteLayer(*next, kLayer, {{0, 1}}));
  EXPECT_TRUE(FailsWith(ReadLayer(*before, kLayer, Pages(0, 64)), absl::StatusCode::kAborted, ""));
  EXPECT_EQ(ReadLayer(*before, kLayer, Pages(0, 64))->size(), 1u);
}

// Not the heartbeat's grace, which OSDs have of each other, nor any other time makes it the owner
// again: it was stopped for longer, in the middle of writing.
TEST(RadosFencing, AnOwnerThatWasStoppedForLongWritesNothingWhenItGoesOn) {
  const std::string location = NewLocation();
  OtherProcess writer(kWriterVariable, location);
  std::string line;
  for (int i = 0; i < 20; ++i) line = writer.Line();
  ASSERT_EQ(line.rfind("acknowledged ", 0), 0u) << line;
  writer.Signal(SIGSTOP);
  std::this_thread::sleep_for(std::chrono::seconds(7));
  const auto next = OpenRados(location);
  ASSERT_STATUS_OK(Own(*next));
  const auto taken = ReadLayer(*next, kLayer, Pages(0, kPagesOfAll));
  ASSERT_STATUS_OK(taken);
  ASSERT_STATUS_OK(WriteLayer(*next, kLayer, {{320, 77}}));
  writer.Signal(SIGCONT);

  uint64_t acknowledged = std::stoull(line.substr(13));
  int refused = 0;
  while (!(line = writer.Line()).empty()) {
    EXPECT_EQ(refused == 0 || line == "refused", true) << line;
    if (line == "refused") ++refused;
    if (line.rfind("acknowledged ", 0) == 0) acknowledged = std::stoull(line.substr(13));
  }
  EXPECT_EQ(refused, 5);
  EXPECT_GE(acknowledged, 20u);
  auto expected = *taken;
  expected[320] = PatternEncoded(320, 77);
  EXPECT_TRUE(SamePages(*ReadLayer(*next, kLayer, Pages(0, kPagesOfAll)), expected));
  for (const uint64_t page : kFirstPages) {
    ASSERT_TRUE(taken->contains(page));
    const uint64_t version = VersionOf(page, taken->at(page), 1, acknowledged + 1);
    EXPECT_GE(version, acknowledged) << "page " << page;
    EXPECT_LE(version, acknowledged + 1) << "page " << page;
  }
}

// It is stopped while it answers out of its cache, and has no say in how long that lasts.
TEST(RadosFencing, AnOwnerThatWasStoppedAnswersWithNothingThatTheNextHasReplaced) {
  for (const int stopped_ms : {0, 300, 3000}) {
    const std::string location = NewLocation();
    OtherProcess reader(kReaderVariable, location);
    const auto next = OpenRados(location);
    const auto until = steady_clock::now() + std::chrono::milliseconds(500);
    std::string line;
    while (steady_clock::now() < until) {
      line = reader.Line();
      ASSERT_TRUE(absl::ascii_isdigit(static_cast<unsigned char>(line[0]))) << line;
    }
    reader.Signal(SIGSTOP);
    ASSERT_STATUS_OK(Own(*next));
    ASSERT_STATUS_OK(WriteLayer(*next, kLayer, {{0, 2}}));
    const auto replaced = steady_clock::now().time_since_epoch().count();
    std::this_thread::sleep_for(std::chrono::milliseconds(stopped_ms));
    reader.Signal(SIGCONT);
    int late = 0;
    for (line = reader.Line(); line != "another" && !line.empty(); line = reader.Line()) {
      late += std::stol(line) > replaced ? 1 : 0;
    }
    EXPECT_EQ(line, "another");
    EXPECT_EQ(late, 0) << "reads that began behind the write had what it replaced";
  }
}

// Whoever is killed and started again at once is the owner at once.
TEST(RadosFencing, AnOwnerThatWasKilledLosesNothingAcknowledged) {
  const std::string location = NewLocation();
  uint64_t acknowledged = 0;
  for (int round = 0; round < 3; ++round) {
    OtherProcess writer(kWriterVariable, location);
    for (int i = 0; i < 15; ++i) acknowledged = std::stoull(writer.Line().substr(13));
    writer.Signal(SIGKILL);
    for (std::string line; !(line = writer.Line()).empty();) {
      acknowledged = std::stoull(line.substr(13));
    }
    const auto began = steady_clock::now();
    const auto store = OpenRados(location);
    ASSERT_STATUS_OK(Own(*store));
    EXPECT_LT(steady_clock::now() - began, std::chrono::seconds(2));
    for (const uint64_t page : kFirstPages) {
      const auto found = ReadLayer(*store, kLayer, Pages(page, 1));
      ASSERT_STATUS_OK(found);
      ASSERT_EQ(found->size(), 1u);
      const uint64_t version = VersionOf(page, found->at(page), 1, acknowledged + 1);
      EXPECT_GE(version, acknowledged) << "page " << page;
      EXPECT_LE(version, acknowledged + 1) << "page " << page;
    }
  }
}

// Threads that write versions of their own extents, and read what they have written.
class Load {
 public:
  static constexpr uint64_t kThreads = 4;
  // Neighbours and others of one extent, and one of another.
  static constexpr uint64_t kPages[] = {0, 1, 17, 40, 63, 64};

  explicit Load(PageStore* store) : store_(store) {
    for (uint64_t t = 0; t < kThreads; ++t) threads_.emplace_back([this, t] { Run(t); });
  }
  ~Load() { Stop(); }
  Load(const Load&) = delete;
  Load& operator=(const Load&) = delete;

  void Stop() {
    stop_ = true;
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }
  // After Stop(): every page has the version that was acknowledged last.
  void Check(PageStore& store) {
    for (uint64_t t = 0; t < kThreads; ++t) {
      EXPECT_EQ(results_[t], absl::OkStatus());
      EXPECT_EQ(wrong_[t], 0u) << "reads that found a torn or an old page";
      const auto found = ReadLayer(store, LayerId(10 + t), Pages(0, 128));
      ASSERT_STATUS_OK(found);
      EXPECT_TRUE(SamePages(*found, ContentOf(versions_[t])));
    }
  }
  uint64_t writes() const { return writes_; }
  std::chrono::milliseconds longest() const { return std::chrono::milliseconds(longest_ms_); }

 private:
  static std::map<uint64_t, std::string> ContentOf(uint64_t version) {
    std::map<uint64_t, std::string> content;
    for (const uint64_t page : kPages) content[page] = PatternEncoded(page, version);
    return content;
  }

  void Run(uint64_t t) {
    while (!stop_ && results_[t].ok()) {
      std::map<uint64_t, uint64_t> pages;
      for (const uint64_t page : kPages) pages[page] = versions_[t] + 1;
      const auto began = steady_clock::now();
      results_[t] = WriteLayer(*store_, LayerId(10 + t), pages);
      if (!results_[t].ok()) break;
      ++versions_[t];
      ++writes_;
      const auto found = ReadLayer(*store_, LayerId(10 + t), Pages(0, 128));
      results_[t] = found.status();
      if (found.ok()) wrong_[t] += *found != ContentOf(versions_[t]);
      const auto took =
          std::chrono::duration_cast<std::chrono::milliseconds>(steady_clock::now() - began);
      if (took.count() > longest_ms_) longest_ms_ = took.count();
    }
  }

  PageStore* const store_;
  std::atomic<bool> stop_ = false;
  std::atomic<uint64_t> writes_ = 0;
  std::atomic<int64_t> longest_ms_ = 0;
  // Of each thread.
  std::array<uint64_t, kThreads> versions_ = {}, wrong_ = {};
  std::array<absl::Status, kThreads> results_;
  std::vector<std::thread> threads_;
};

TEST(RadosFaults, KillingEveryOsdInTurnLosesNothingAcknowledged) {
  const std::string location = NewLocation();
  const auto store = OpenRados(location);
  Load load(store.get());
  for (const char* osd : {"0", "1", "2"}) {
    Cluster("kill", osd);
    const uint64_t before = load.writes();
    // Two are enough to go on.
    const auto deadline = steady_clock::now() + std::chrono::seconds(30);
    while (load.writes() < before + 50 && steady_clock::now() < deadline) usleep(10'000);
    EXPECT_GE(load.writes(), before + 50) << "with OSD " << osd << " killed";
    Cluster("osd", osd);
    Cluster("wait");
  }
  load.Stop();
  load.Check(*store);
  printf("%lu writes, the longest %ld ms\n", static_cast<unsigned long>(load.writes()),
         static_cast<long>(load.longest().count()));
  load.Check(*OpenRados(location));
}

// Neither a write that cannot be acknowledged, nor what the configuration says of timeouts, makes a
// write fail that may be carried out later.
TEST(RadosFaults, AWriteWaitsWhileTooFewReplicasAreThere) {
  TemporaryDirectory directory;
  PageStoreOptions options = RadosOptions();
  const std::string conf = directory.path() + "/ceph.conf";
  const std::string copy =
      "(cat " + options.rados_conf + "; echo '[client]'; echo 'rados osd op timeout = 1') >" + conf;
  ASSERT_EQ(system(copy.c_str()), 0);
  options.rados_conf = conf;
  auto store = OpenPageStore(NewLocation(), options);
  ASSERT_STATUS_OK(store);
  ASSERT_STATUS_OK(WriteLayer(**store, kLayer, {{0, 1}}));
  Cluster("kill", "1 STOP");
  Cluster("kill", "2 STOP");
  std::atomic<bool> done = false;
  absl::Status status;
  std::thread writer([&] {
    status = WriteLayer(**store, kLayer, {{0, 2}, {64, 2}, {128, 2}, {192, 2}});
    done = true;
  });
  std::this_thread::sleep_for(std::chrono::seconds(4));
  EXPECT_FALSE(done);
  Cluster("kill", "1 CONT");
  Cluster("kill", "2 CONT");
  writer.join();
  EXPECT_EQ(status, absl::OkStatus());
  EXPECT_EQ(ReadLayer(**store, kLayer, Pages(0, 1))->at(0), PatternEncoded(0, 2));
  Cluster("wait");
}

}  // namespace
}  // namespace faultline

int main(int argc, char** argv) {
  if (const char* location = getenv(faultline::kWriterVariable); location != nullptr) {
    return faultline::WriteUntilFenced(location);
  }
  if (const char* location = getenv(faultline::kReaderVariable); location != nullptr) {
    return faultline::ReadUntilFenced(location);
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
