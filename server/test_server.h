// SPDX-License-Identifier: Apache-2.0
//
// A server in the test's own process, on a unix socket, over a memory store whose large reads and
// writes can be held up.
#ifndef FAULTLINE_SERVER_TEST_SERVER_H_
#define FAULTLINE_SERVER_TEST_SERVER_H_

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "proto/mutex.h"
#include "server/page_window.h"
#include "server/server.h"
#include "server/test_client.h"
#include "storage/forwarding_page_store.h"
#include "storage/memory_page_store.h"
#include "storage/page_store.h"

namespace faultline {

// grpc.health.v1.HealthCheckResponse with its one field.
inline constexpr absl::string_view kServingResponse("\x08\x01", 2);
inline constexpr absl::string_view kNotServingResponse("\x08\x02", 2);

// A gate that threads stop at while it is closed. Thread-safe. Open at first.
class Gate {
 public:
  void Close() {
    MutexLock lock(mu_);
    closed_ = true;
  }
  void Open() {
    MutexLock lock(mu_);
    closed_ = false;
    changed_.SignalAll();
  }
  void Pass() {
    MutexLock lock(mu_);
    ++waiting_;
    changed_.SignalAll();
    while (closed_) changed_.Wait(mu_);
    --waiting_;
  }
  // Returns when `n` threads stand at the gate.
  void WaitForThreads(int n) {
    MutexLock lock(mu_);
    while (waiting_ < n) changed_.Wait(mu_);
  }

 private:
  Mutex mu_;
  CondVar changed_;
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
  int waiting_ ABSL_GUARDED_BY(mu_) = 0;
};

// Passes everything on; reads that a worker does, and all writes, go through a gate.
class GatedPageStore final : public ForwardingPageStore {
 public:
  GatedPageStore(std::shared_ptr<PageStore> store, Gate* gate)
      : ForwardingPageStore(std::move(store)), gate_(gate) {}

  absl::Status Read(LayerId layer, PageRange range, Visitor visit) override {
    if (range.count.raw() > kMaxInlinePages) gate_->Pass();
    return ForwardingPageStore::Read(layer, range, visit);
  }
  absl::Status Write(LayerId layer, const PageWrites& writes, Durability durability) override {
    gate_->Pass();
    return ForwardingPageStore::Write(layer, writes, durability);
  }

 private:
  Gate* const gate_;
};

class ServerTest : public testing::Test {
 protected:
  // Call once, before anything else.
  void StartServer(ServerOptions options = {},
                   std::unique_ptr<PageStore> store = NewMemoryPageStore()) {
    options.listen = {"unix:" + directory_.File("socket")};
    options.store = "memory:";
    absl::StatusOr<std::unique_ptr<VolumeCatalog>> catalog = VolumeCatalog::Open(std::move(store));
    ASSERT_TRUE(catalog.ok()) << catalog.status();
    absl::StatusOr<std::unique_ptr<Server>> server = Server::Start(options, *std::move(catalog));
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    client_ = std::make_unique<TestClient>(address());
  }

  void StartGatedServer(ServerOptions options = {}) {
    StartServer(std::move(options), std::make_unique<GatedPageStore>(NewMemoryPageStore(), &gate_));
  }

  // Creates a volume and opens it for writing.
  rpc::OpenVolumeResponse CreateAndOpen(const std::string& name, uint64_t pages) {
    const absl::StatusOr<rpc::Volume> volume = client_->Create(name, pages * kPageSize);
    EXPECT_TRUE(volume.ok()) << volume.status();
    const absl::StatusOr<rpc::OpenVolumeResponse> open =
        client_->Open(name, rpc::OpenVolumeRequest::WRITE);
    EXPECT_TRUE(open.ok()) << open.status();
    return open.value_or(rpc::OpenVolumeResponse());
  }

  // Expects pages [first, first + count) of the volume to have the bytes of `version`.
  void ExpectPages(uint64_t volume_id, uint64_t first, uint64_t count, uint64_t version) {
    const absl::StatusOr<std::map<uint64_t, Page>> pages = client_->Fetch(volume_id, first, count);
    ASSERT_TRUE(pages.ok()) << pages.status();
    ASSERT_EQ(pages->size(), count);
    for (const auto& [index, page] : *pages) {
      EXPECT_TRUE(page == PageOf(index, version)) << "page " << index << ", version " << version;
    }
  }

  const std::string& address() const { return server_->addresses().front(); }

  TemporaryDirectory directory_;
  Gate gate_;
  std::unique_ptr<Server> server_;
  std::unique_ptr<TestClient> client_;
};

}  // namespace faultline

#endif  // FAULTLINE_SERVER_TEST_SERVER_H_
