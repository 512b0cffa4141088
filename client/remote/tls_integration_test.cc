// SPDX-License-Identifier: Apache-2.0
//
// The client's connections over real TLS to the real server: pages, which servers they trust, and
// which of their own certificates they show.
#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_replace.h>
#include <absl/time/clock.h>
#include <gtest/gtest.h>
#include <stdio.h>

#include <cstring>
#include <future>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "client/remote/admin_client.h"
#include "client/remote/page_server.h"
#include "proto/certificate_authority.h"
#include "server/server.h"
#include "server/test_client.h"

// c-ares 1.18 loses the name "localhost" each time that gRPC's resolver looks it up.
extern "C" const char* __lsan_default_suppressions();  // NOLINT(bugprone-reserved-identifier)
extern "C" const char* __lsan_default_suppressions() { return "leak:libcares.so"; }

namespace faultline {
namespace {

using absl::StatusCode;

constexpr uint64_t kDiskPages = 64;

absl::Time Soon() { return absl::Now() + absl::Seconds(30); }

class ClientTlsTest : public testing::Test {
 protected:
  ClientTlsTest() {
    auto authority = CertificateAuthority::Create(directory_.File("ca.pem"));
    EXPECT_TRUE(authority.ok()) << authority.status();
    authority_ = *std::move(authority);
    server_files_ = Issue("server", "server");
    alice_.files = Issue("alice", "alice");
  }

  TlsFiles Issue(const std::string& name, const std::string& file) {
    auto files = authority_->Issue(name, directory_.File(file), absl::Now() + absl::Hours(1));
    EXPECT_TRUE(files.ok()) << files.status();
    files->reload_seconds = 1;
    return *std::move(files);
  }

  // At the same address each time.
  void StartServer() {
    server_.reset();
    PageStoreOptions store_options;
    store_options.memory_bytes = uint64_t{16} << 20;
    auto store = OpenPageStore("rocksdb:" + directory_.File("store"), store_options);
    ASSERT_TRUE(store.ok()) << store.status();
    auto catalog = VolumeCatalog::Open(*std::move(store));
    ASSERT_TRUE(catalog.ok()) << catalog.status();
    auto server = Server::Start({.listen = {address_}, .tls = server_files_}, *std::move(catalog));
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    address_ = server_->addresses().front();
  }

  std::unique_ptr<AdminClient> Admin(const ServerTls& tls) {
    auto admin =
        AdminClient::Create({.address = address_, .tls = tls, .call_timeout = absl::Seconds(20)});
    EXPECT_TRUE(admin.ok()) << admin.status();
    return *std::move(admin);
  }

  absl::Status CreateVolume(const ServerTls& tls) {
    rpc::CreateVolumeRequest request;
    request.set_name("disk");
    request.set_size_bytes(kDiskPages * kPageSize);
    return Admin(tls)->CreateVolume(request).status();
  }

  TemporaryDirectory directory_;
  std::unique_ptr<CertificateAuthority> authority_;
  TlsFiles server_files_;
  ServerTls alice_;
  std::string address_ = "127.0.0.1:0";
  std::unique_ptr<Server> server_;
};

TEST_F(ClientTlsTest, PagesGoBothWays) {
  StartServer();
  ASSERT_TRUE(CreateVolume(alice_).ok());
  auto connection = PageServer::Create({.address = address_, .tls = alice_});
  ASSERT_TRUE(connection.ok()) << connection.status();
  auto io = (*connection)->OpenVolumeIo("disk", Soon());
  ASSERT_TRUE(io.ok()) << io.status();

  std::vector<Page> content;
  std::vector<PageToWrite> writes;
  for (uint64_t i = 0; i < kDiskPages; ++i) content.push_back(PageOf(i, 1));
  for (uint64_t i = 0; i < kDiskPages; ++i) writes.push_back({PageIndex(i), content[i].data()});
  std::promise<absl::Status> written;
  io->sink->Write(writes, Soon(), [&](absl::Status status) { written.set_value(status); });
  ASSERT_EQ(written.get_future().get(), absl::OkStatus());

  for (const FetchLane lane : {FetchLane::kDemand, FetchLane::kPrefetch, FetchLane::kBulk}) {
    std::promise<absl::Status> fetched;
    io->source->Fetch({PageIndex(0), PageCount(kDiskPages)}, lane, Soon(), [&](auto runs) {
      absl::Status status = runs.status();
      for (size_t r = 0; runs.ok() && r < runs->size(); ++r) {
        const FetchedRun& run = (*runs)[r];
        if (run.bytes == nullptr ||
            memcmp(run.bytes, content[run.range.first.raw()].data(), run.range.size_bytes()) != 0) {
          status = absl::DataLossError("wrong bytes");
        }
      }
      fetched.set_value(status);
    });
    EXPECT_EQ(fetched.get_future().get(), absl::OkStatus());
  }
}

// Each server by the name that its entry has, though it is connected to by its number.
TEST_F(ClientTlsTest, EachOfSeveralServersIsKnownByTheNameOfItsEntry) {
  StartServer();
  ASSERT_TRUE(CreateVolume(alice_).ok());
  const std::string by_name = absl::StrReplaceAll(address_, {{"127.0.0.1", "localhost"}});
  for (const std::string& servers :
       {absl::StrCat(address_, ",127.0.0.1:1"), absl::StrCat("127.0.0.1:1,", by_name),
        absl::StrCat("dns:///", by_name)}) {
    auto connection = PageServer::Create({.address = servers, .tls = alice_});
    ASSERT_TRUE(connection.ok()) << connection.status();
    EXPECT_TRUE((*connection)->OpenVolume("disk", Soon()).ok()) << servers;
    EXPECT_TRUE((*AdminClient::Create({.address = servers, .tls = alice_}))->ListVolumes().ok());
  }
  ServerTls wrong = alice_;
  wrong.server_name = "pages.example";
  auto connection = PageServer::Create({.address = "dns:///" + by_name, .tls = wrong});
  EXPECT_EQ((*connection)->OpenVolume("disk", absl::Now() + absl::Seconds(1)).status().code(),
            absl::StatusCode::kUnavailable);
}

TEST_F(ClientTlsTest, AVolumeOfOthersIsNoneAndIsNotAskedForAgain) {
  StartServer();
  ASSERT_TRUE(CreateVolume(alice_).ok());
  const ServerTls bob{.files = Issue("bob", "bob"), .server_name = ""};
  auto connection = PageServer::Create({.address = address_, .tls = bob});
  ASSERT_TRUE(connection.ok()) << connection.status();
  const absl::Status refused = (*connection)->OpenVolume("disk", Soon()).status();
  EXPECT_STATUS(refused, StatusCode::kPermissionDenied, "that \"bob\" may use");
  EXPECT_FALSE(IsRetryable(refused));
  EXPECT_TRUE(IsNoVolume(refused));
}

TEST_F(ClientTlsTest, AServerOfAnotherAuthorityIsNotTrusted) {
  auto other = CertificateAuthority::Create(directory_.File("other.pem"));
  ASSERT_TRUE(other.ok()) << other.status();
  server_files_ =
      *(*other)->Issue("server", directory_.File("server"), absl::Now() + absl::Hours(1));
  server_files_.ca = alice_.files.ca;
  StartServer();
  EXPECT_STATUS(CreateVolume(alice_), StatusCode::kUnavailable, "accepts the other's certificate");
}

TEST_F(ClientTlsTest, AServerOfAnotherNameIsNotTrusted) {
  StartServer();
  ServerTls elsewhere = alice_;
  elsewhere.server_name = "elsewhere.example";
  EXPECT_STATUS(CreateVolume(elsewhere), StatusCode::kUnavailable, "cannot reach the page server");
  elsewhere.server_name = "localhost";
  EXPECT_EQ(CreateVolume(elsewhere), absl::OkStatus());
}

// Its certificate is replaced by one of another name, so that the server tells which was shown.
TEST_F(ClientTlsTest, NewFilesAreShownFromTheNextConnectionOn) {
  StartServer();
  ASSERT_TRUE(CreateVolume(alice_).ok());
  const auto admin = Admin(alice_);
  ASSERT_TRUE(admin->StatVolume("disk").ok());
  const TlsFiles bob = Issue("bob", "alice");
  ASSERT_EQ(bob.certificate, alice_.files.certificate);
  // Whoever connects from here on is bob; the connection that lives is alice's.
  EXPECT_STATUS(Admin(alice_)->StatVolume("disk").status(), StatusCode::kPermissionDenied,
                "\"bob\"");
  absl::SleepFor(absl::Seconds(2 * alice_.files.reload_seconds));
  EXPECT_TRUE(admin->StatVolume("disk").ok());

  StartServer();
  absl::Status status = absl::UnavailableError("not asked");
  for (const absl::Time patience_ends = Soon();
       absl::IsUnavailable(status) && absl::Now() < patience_ends;) {
    absl::SleepFor(absl::Milliseconds(20));
    status = admin->StatVolume("disk").status();
  }
  EXPECT_STATUS(status, StatusCode::kPermissionDenied, "\"bob\"");
}

TEST_F(ClientTlsTest, FilesThatAreOfNoUseAreSaidAtOnce) {
  ServerTls wrong = alice_;
  wrong.files.key = server_files_.key;
  EXPECT_STATUS(PageServer::Create({.address = "127.0.0.1:1", .tls = wrong}).status(),
                StatusCode::kInvalidArgument, "is not the key of");
  wrong = {.files = {}, .server_name = "localhost"};
  EXPECT_STATUS(AdminClient::Create({.address = "127.0.0.1:1", .tls = wrong}).status(),
                StatusCode::kInvalidArgument, "--tls-server-name needs");
}

}  // namespace
}  // namespace faultline
