// SPDX-License-Identifier: Apache-2.0
//
// The remote source and sink against the real server: what every PageSource and PageSink does, and
// what a sink does when the server is slow, full, killed, or has nothing that may be written.
#include <absl/strings/str_cat.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <optional>

#include "client/remote/admin_client.h"
#include "client/remote/page_server.h"
#include "client/source/page_sink_conformance.h"
#include "client/source/page_source_conformance.h"
#include "server/server.h"
#include "server/test_process.h"
#include "storage/faulty_page_store.h"
#include "storage/forwarding_page_store.h"

namespace faultline {
namespace {

using absl::StatusCode;

absl::Time Patience() { return absl::Now() + absl::Seconds(60); }

struct Directory {
  Directory() {
    std::string name = absl::StrCat(testing::TempDir(), "/remote_XXXXXX");
    path = mkdtemp(name.data());
  }
  ~Directory() { std::filesystem::remove_all(path); }
  std::string path;
};

// All that a source or sink needs to work; destroyed from the bottom up.
struct Stack {
  Directory directory;
  std::unique_ptr<Server> server;          // in this process,
  std::unique_ptr<ServerProcess> process;  // or in its own
  std::unique_ptr<PageServer> connection;
  VolumeIo io;

  std::string address() const { return absl::StrCat("unix:", directory.path, "/s"); }
};

absl::Status Connect(Stack* stack, Codec codec = Codec::kRaw) {
  auto connection = PageServer::Create({.address = stack->address(), .write_codec = codec});
  if (!connection.ok()) return connection.status();
  stack->connection = *std::move(connection);
  return absl::OkStatus();
}

// A server with the volume "disk", on `store`.
absl::Status StartServer(Stack* stack, std::unique_ptr<PageStore> store, PageCount size) {
  auto catalog = VolumeCatalog::Open(std::move(store));
  if (!catalog.ok()) return catalog.status();
  if (auto volume = (*catalog)->Create("disk", size.in_bytes(), Durability::kSync); !volume.ok()) {
    return volume.status();
  }
  ServerOptions options;
  options.listen = {stack->address()};
  auto server = Server::Start(options, *std::move(catalog));
  if (!server.ok()) return server.status();
  stack->server = *std::move(server);
  return absl::OkStatus();
}

std::unique_ptr<AdminClient> Administer(const Stack& stack) {
  return *AdminClient::Create({.address = stack.address()});
}

absl::Status CreateVolume(const Stack& stack, const std::string& name, PageCount size) {
  rpc::CreateVolumeRequest request;
  request.set_name(name);
  request.set_size_bytes(size.in_bytes());
  return Administer(stack)->CreateVolume(request).status();
}

std::unique_ptr<PageStore> NewMemoryStore() { return *OpenPageStore("memory:", {}); }

absl::Status WriteContent(PageSink& sink, const std::string& content) {
  std::vector<PageToWrite> pages;
  for (uint64_t page = 0; page < content.size() / kPageSize; ++page) {
    pages.push_back(
        {PageIndex(page), reinterpret_cast<const std::byte*>(&content[page * kPageSize])});
  }
  std::promise<absl::Status> done;
  sink.Write(pages, Patience(), [&](absl::Status status) { done.set_value(std::move(status)); });
  return done.get_future().get();
}

absl::StatusOr<std::shared_ptr<PageSource>> MakeSource(const std::string& content, Codec codec) {
  auto stack = std::make_shared<Stack>();
  absl::Status status =
      StartServer(stack.get(), NewMemoryStore(), PageCount::CoveringBytes(content.size()));
  if (status.ok()) status = Connect(stack.get(), codec);
  if (!status.ok()) return status;
  absl::StatusOr<VolumeIo> io = stack->connection->OpenVolumeIo("disk", Patience());
  if (!io.ok()) return io.status();
  stack->io = *std::move(io);
  if (status = WriteContent(*stack->io.sink, content); !status.ok()) return status;
  PageSource* const raw = stack->io.source.get();
  return std::shared_ptr<PageSource>(std::move(stack), raw);
}

SourceMaker SourceOf(const char* name, Codec codec) {
  return {name, [codec](const std::string& content) {
            auto source = MakeSource(content, codec);
            EXPECT_TRUE(source.ok()) << source.status();
            return source.ok() ? *source : nullptr;
          }};
}

INSTANTIATE_TEST_SUITE_P(Remote, PageSourceConformance,
                         testing::Values(SourceOf("server", Codec::kRaw),
                                         SourceOf("server_compressed", Codec::kZstd)),
                         [](const auto& parameter) { return parameter.param.name; });

OpenVolumeIo OpenThrough(std::shared_ptr<Stack> stack) {
  return [stack](absl::string_view volume, absl::Time deadline) {
    return stack->connection->OpenVolumeIo(volume, deadline);
  };
}

OpenVolumeIo OpenOnMemoryStore(PageCount size) {
  auto stack = std::make_shared<Stack>();
  EXPECT_EQ(StartServer(stack.get(), NewMemoryStore(), size), absl::OkStatus());
  EXPECT_EQ(Connect(stack.get(), Codec::kLz4), absl::OkStatus());
  return OpenThrough(std::move(stack));
}

// The real program on a disk of its own.
void StartProcess(Stack* stack, const std::string& store, const ProcessDisk& disk = {}) {
  stack->process.reset();
  stack->process = std::make_unique<ServerProcess>(
      std::vector<std::string>{"--store=rocksdb:" + store, "--store-memory=16MiB",
                               "--listen=" + stack->address()},
      std::vector<std::string>(), disk);
}

OpenVolumeIo OpenOnRocksDb(PageCount size) {
  auto stack = std::make_shared<Stack>();
  StartProcess(stack.get(), stack->directory.path + "/store");
  EXPECT_NE(stack->process->WaitForLine("listening on"), "") << stack->process->output();
  EXPECT_EQ(CreateVolume(*stack, "disk", size), absl::OkStatus());
  EXPECT_EQ(Connect(stack.get()), absl::OkStatus());
  return OpenThrough(std::move(stack));
}

INSTANTIATE_TEST_SUITE_P(Remote, PageSinkConformance,
                         testing::Values(SinkMaker{"memory_store_lz4", &OpenOnMemoryStore},
                                         SinkMaker{"rocksdb_process", &OpenOnRocksDb}),
                         [](const auto& parameter) { return parameter.param.name; });

class RemoteSink : public testing::Test {
 protected:
  static constexpr uint64_t kPages = 256;

  void Start(std::unique_ptr<PageStore> store) {
    ASSERT_EQ(StartServer(&stack_, std::move(store), PageCount(kPages)), absl::OkStatus());
    ASSERT_EQ(Connect(&stack_), absl::OkStatus());
    Open();
  }
  void Open() {
    absl::StatusOr<VolumeIo> io = stack_.connection->OpenVolumeIo("disk", Patience());
    ASSERT_TRUE(io.ok()) << io.status();
    stack_.io = *std::move(io);
  }
  PageSink& sink() { return *stack_.io.sink; }
  PageSource& source() { return *stack_.io.source; }

  Stack stack_;
};

// The first write of pages takes until a second one has been applied, or a second has passed.
class FirstWriteIsLate final : public ForwardingPageStore {
 public:
  using ForwardingPageStore::ForwardingPageStore;

  absl::Status Write(LayerId layer, const PageWrites& writes, Durability durability) override {
    if (begun_.exchange(true)) {
      absl::Status status = ForwardingPageStore::Write(layer, writes, durability);
      overtaken_ = true;
      overtaken_.notify_all();
      return status;
    }
    for (int i = 0; i < 1000 && !overtaken_; ++i) absl::SleepFor(absl::Milliseconds(1));
    absl::Status status = ForwardingPageStore::Write(layer, writes, durability);
    ended_ = true;
    ended_.notify_all();
    return status;
  }
  void WaitForTheFirst() { ended_.wait(false); }

 private:
  std::atomic<bool> begun_ = false, overtaken_ = false, ended_ = false;
};

TEST_F(RemoteSink, AWriteThatWasGivenUpNeverOverwritesANewerOne) {
  auto store = std::make_unique<FirstWriteIsLate>(NewMemoryStore());
  FirstWriteIsLate* const late = store.get();
  Start(std::move(store));
  EXPECT_EQ(StartWrite(sink(), {{1, 1}, {2, 1}, {3, 0}}, absl::Milliseconds(1)).get().code(),
            StatusCode::kDeadlineExceeded);
  ASSERT_EQ(WriteAndWait(sink(), {{1, 2}, {2, 0}, {3, 2}}), absl::OkStatus());
  ExpectVersions(source(), {{1, 2}, {2, 0}, {3, 2}});
  late->WaitForTheFirst();
  ExpectVersions(source(), {{1, 2}, {2, 0}, {3, 2}});
}

TEST_F(RemoteSink, AFullDiskRefusesWritesUntilThereIsRoom) {
  auto store = std::make_unique<FaultyPageStore>(NewMemoryStore(), FaultyPageStore::Faults());
  FaultyPageStore* const disk = store.get();
  Start(std::move(store));
  ASSERT_EQ(WriteAndWait(sink(), {{1, 1}, {2, 1}}), absl::OkStatus());
  disk->set_disk_full(true);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(WriteAndWait(sink(), {{1, 2}, {2, 0}}).code(), StatusCode::kResourceExhausted);
  }
  ExpectVersions(source(), {{1, 1}, {2, 1}});
  disk->set_disk_full(false);
  ASSERT_EQ(WriteAndWait(sink(), {{1, 2}, {2, 0}}), absl::OkStatus());
  ExpectVersions(source(), {{1, 2}, {2, 0}});
}

TEST_F(RemoteSink, ErrorsOfTheDeviceAreTriedAgain) {
  Start(std::make_unique<FaultyPageStore>(NewMemoryStore(),
                                          FaultyPageStore::Faults{.seed = 5, .write_error = 0.5}));
  for (uint64_t version = 1; version <= 40; ++version) {
    ASSERT_EQ(WriteAndWait(sink(), {{version % 3, version}}), absl::OkStatus());
    ExpectVersions(source(), {{version % 3, version}});
  }
}

TEST_F(RemoteSink, WhatNobodyMayWriteCannotBeOpened) {
  Start(NewMemoryStore());
  ASSERT_TRUE(Administer(stack_)->SnapshotVolume("disk", "frozen").ok());
  const auto frozen = stack_.connection->OpenVolumeIo("frozen", Patience());
  EXPECT_EQ(frozen.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(frozen.status().message(),
            "volume \"frozen\" is a snapshot, which never changes; write to a clone of it");
  EXPECT_EQ(stack_.connection->OpenVolumeIo("tape", Patience()).status().code(),
            StatusCode::kNotFound);
  ASSERT_TRUE(Administer(stack_)->DeleteVolume("disk").ok());
  EXPECT_EQ(WriteAndWait(sink(), {{1, 1}}).code(), StatusCode::kNotFound);
}

TEST_F(RemoteSink, ASnapshotHasWhatWasAcknowledgedBeforeIt) {
  Start(NewMemoryStore());
  ASSERT_EQ(WriteAndWait(sink(), {{1, 1}, {2, 1}}), absl::OkStatus());
  ASSERT_TRUE(Administer(stack_)->SnapshotVolume("disk", "frozen").ok());
  ASSERT_EQ(WriteAndWait(sink(), {{1, 2}, {2, 0}}), absl::OkStatus());  // no new opening is needed
  const auto frozen = stack_.connection->OpenVolume("frozen", Patience());
  ASSERT_TRUE(frozen.ok()) << frozen.status();
  ExpectVersions(**frozen, {{1, 1}, {2, 1}});
  ExpectVersions(source(), {{1, 2}, {2, 0}});
}

TEST_F(RemoteSink, AServerThatIsKilledAgainAndAgainLosesNothing) {
  constexpr uint64_t kThreads = 3, kArea = kPages / kThreads, kVersions = 120;
  const std::string store = stack_.directory.path + "/store";
  StartProcess(&stack_, store);
  ASSERT_NE(stack_.process->WaitForLine("listening on"), "") << stack_.process->output();
  ASSERT_EQ(CreateVolume(stack_, "disk", PageCount(kPages)), absl::OkStatus());
  ASSERT_EQ(Connect(&stack_), absl::OkStatus());
  Open();
  std::atomic<uint64_t> written = 0;
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(static_cast<uint32_t>(t));
      std::map<uint64_t, uint64_t> all;
      for (uint64_t version = 1; version <= kVersions; ++version) {
        std::map<uint64_t, uint64_t> some;
        for (uint64_t i = 0; i < kArea; ++i) {
          if (random() % 2 == 0) some[t * kArea + i] = random() % 8 == 0 ? 0 : version;
        }
        ASSERT_EQ(WriteAndWait(sink(), some), absl::OkStatus());
        for (const auto& [page, now] : some) all[page] = now;
        ExpectVersions(source(), {*some.begin(), *some.rbegin()});
        ++written;
      }
      ExpectVersions(source(), all);
    });
  }
  for (uint64_t kills = 1; kills <= 6; ++kills) {
    while (written < kills * kThreads * kVersions / 8) absl::SleepFor(absl::Milliseconds(1));
    stack_.process->Signal(SIGKILL);
    StartProcess(&stack_, store);
    EXPECT_NE(stack_.process->WaitForLine("listening on"), "") << stack_.process->output();
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_F(RemoteSink, AWriterThatWasFencedStaysSoWhenTheServerComesBack) {
  const std::string store = stack_.directory.path + "/store";
  StartProcess(&stack_, store);
  ASSERT_NE(stack_.process->WaitForLine("listening on"), "") << stack_.process->output();
  ASSERT_EQ(CreateVolume(stack_, "disk", PageCount(kPages)), absl::OkStatus());
  ASSERT_EQ(Connect(&stack_), absl::OkStatus());
  Open();
  const VolumeIo first = stack_.io;
  Open();
  ASSERT_EQ(WriteAndWait(sink(), {{1, 2}}), absl::OkStatus());
  stack_.process->Signal(SIGKILL);
  StartProcess(&stack_, store);
  EXPECT_EQ(WriteAndWait(*first.sink, {{1, 1}}).code(), StatusCode::kFailedPrecondition);
  ASSERT_EQ(WriteAndWait(sink(), {{2, 2}}), absl::OkStatus());
  ExpectVersions(source(), {{1, 2}, {2, 2}});
}

TEST_F(RemoteSink, ADiskThatIsReallyFullRefusesWritesUntilAVolumeIsDeleted) {
  constexpr uint64_t kDiskBytes = uint64_t{64} << 20, kLarge = 2 * kDiskBytes / kPageSize;
  constexpr uint64_t kBatch = 64;
  const std::string disk = stack_.directory.path + "/disk";
  ASSERT_EQ(mkdir(disk.c_str(), 0777), 0);
  StartProcess(&stack_, disk + "/store", ProcessDisk{disk, kDiskBytes});
  if (stack_.process->WaitForLine("listening on").empty()) {
    ASSERT_EQ(stack_.process->Wait(), ServerProcess::kExitCannotMount) << stack_.process->output();
    GTEST_SKIP() << "mounting a tmpfs needs CAP_SYS_ADMIN or unprivileged user namespaces";
  }
  ASSERT_EQ(Connect(&stack_), absl::OkStatus());
  for (const char* name : {"disk", "ballast"}) {
    ASSERT_EQ(CreateVolume(stack_, name, PageCount(kLarge)), absl::OkStatus());
  }
  Open();
  absl::StatusOr<VolumeIo> ballast = stack_.connection->OpenVolumeIo("ballast", Patience());
  ASSERT_TRUE(ballast.ok()) << ballast.status();
  const auto batch = [](uint64_t first, uint64_t version) {
    std::map<uint64_t, uint64_t> pages;
    for (uint64_t page = first; page < first + kBatch; ++page) pages[page] = version;
    return pages;
  };
  // A store that was full finds room again by itself when it drops logs that it has flushed: more
  // ballast, then, until a write of the other volume is refused too.
  uint64_t acknowledged = 1;
  ASSERT_EQ(WriteAndWait(sink(), batch(0, acknowledged)), absl::OkStatus());
  absl::Status status;
  for (uint64_t first = 0; first < kLarge; first += kBatch) {
    status = WriteAndWait(*ballast->sink, batch(first, 1));
    if (status.ok()) continue;
    ASSERT_EQ(status.code(), StatusCode::kResourceExhausted) << status;
    status = WriteAndWait(sink(), batch(0, acknowledged + 1));
    if (!status.ok()) break;
    ++acknowledged;
  }
  ASSERT_EQ(status.code(), StatusCode::kResourceExhausted) << status;
  ExpectVersions(source(), batch(0, acknowledged));
  ASSERT_TRUE(Administer(stack_)->DeleteVolume("ballast").ok());
  const absl::Time end = Patience();
  do {
    status = WriteAndWait(sink(), batch(0, acknowledged + 1));
  } while (absl::IsResourceExhausted(status) && absl::Now() < end);
  ASSERT_EQ(status, absl::OkStatus());
  ExpectVersions(source(), batch(0, acknowledged + 1));
}

}  // namespace
}  // namespace faultline
