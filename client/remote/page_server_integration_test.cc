// SPDX-License-Identifier: Apache-2.0
//
// The remote source against the real server: what every PageSource does, after the pages have come
// there by the way of writeback.
#include <absl/strings/str_cat.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <future>

#include "client/remote/page_server.h"
#include "client/source/page_source_conformance.h"
#include "proto/page_batch.h"
#include "server/server.h"

namespace faultline {
namespace {

struct Directory {
  Directory() {
    std::string name = absl::StrCat(testing::TempDir(), "/remote_XXXXXX");
    path = mkdtemp(name.data());
  }
  ~Directory() { std::filesystem::remove_all(path); }
  std::string path;
};

// All that a source needs to work; destroyed from the bottom up.
struct Stack {
  Directory directory;
  std::unique_ptr<Server> server;
  std::unique_ptr<PageServer> connection;
  std::shared_ptr<PageSource> source;
};

absl::Status WriteContent(PageServer* connection, const std::string& content) {
  const auto volume = connection->OpenForWriting("disk", absl::Now() + absl::Seconds(30));
  if (!volume.ok()) return volume.status();
  rpc::PageBatch batch;
  PageBatchBuilder builder(&batch);
  for (uint64_t page = 0; page < content.size() / kPageSize; ++page) {
    builder.Encode(
        PageIndex(page),
        PageBytes(reinterpret_cast<const std::byte*>(&content[page * kPageSize]), kPageSize),
        page % 2 == 0 ? Codec::kRaw : Codec::kZstd);
  }
  std::promise<absl::Status> done;
  connection->Write(volume->volume_id(), volume->epoch(), std::move(batch),
                    absl::Now() + absl::Seconds(30),
                    [&](absl::Status status) { done.set_value(std::move(status)); });
  return done.get_future().get();
}

absl::StatusOr<std::shared_ptr<PageSource>> MakeSource(const std::string& content) {
  auto stack = std::make_shared<Stack>();
  auto store = OpenPageStore("memory:", {});
  if (!store.ok()) return store.status();
  auto catalog = VolumeCatalog::Open(*std::move(store));
  if (!catalog.ok()) return catalog.status();
  if (auto volume = (*catalog)->Create("disk", content.size(), Durability::kSync); !volume.ok()) {
    return volume.status();
  }
  ServerOptions options;
  options.listen = {absl::StrCat("unix:", stack->directory.path, "/s")};
  auto server = Server::Start(options, *std::move(catalog));
  if (!server.ok()) return server.status();
  stack->server = *std::move(server);
  auto connection = PageServer::Create({.address = options.listen[0]});
  if (!connection.ok()) return connection.status();
  stack->connection = *std::move(connection);
  if (absl::Status status = WriteContent(stack->connection.get(), content); !status.ok()) {
    return status;
  }
  auto source = stack->connection->OpenVolume("disk", absl::Now() + absl::Seconds(30));
  if (!source.ok()) return source.status();
  stack->source = *std::move(source);
  PageSource* const raw = stack->source.get();
  return std::shared_ptr<PageSource>(std::move(stack), raw);
}

INSTANTIATE_TEST_SUITE_P(Remote, PageSourceConformance,
                         testing::Values(SourceMaker{"server",
                                                     [](const std::string& content) {
                                                       auto source = MakeSource(content);
                                                       EXPECT_TRUE(source.ok()) << source.status();
                                                       return source.ok() ? *source : nullptr;
                                                     }}),
                         [](const auto& parameter) { return parameter.param.name; });

}  // namespace
}  // namespace faultline
