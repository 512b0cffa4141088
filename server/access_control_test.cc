// SPDX-License-Identifier: Apache-2.0
//
// Who may do what, over real TLS on the loopback: roles, and that those who have none learn
// nothing.
#include "server/access_control.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_replace.h>
#include <absl/time/clock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <map>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "proto/certificate_authority.h"
#include "server/server.h"
#include "server/test_client.h"
#include "storage/memory_page_store.h"

namespace faultline {
namespace {

using absl::StatusCode;

constexpr uint64_t kBytes = 64 * kPageSize;

std::string ContentOf(const std::string& path) {
  std::ostringstream content;
  content << std::ifstream(path).rdbuf();
  return content.str();
}

std::shared_ptr<grpc::ChannelCredentials> CredentialsOf(const TlsFiles& files,
                                                        bool with_certificate = true) {
  grpc::SslCredentialsOptions options;
  options.pem_root_certs = ContentOf(files.ca);
  if (with_certificate) {
    options.pem_cert_chain = ContentOf(files.certificate);
    options.pem_private_key = ContentOf(files.key);
  }
  return grpc::SslCredentials(options);
}

class AccessTest : public testing::Test {
 protected:
  AccessTest() : authority_(NewAuthority("ca.pem")) {
    server_files_ = IssueBy(*authority_, "server", "server");
    StartServer({});
  }

  void StartServer(const ClientLimits& limits) {
    clients_.clear();
    server_.reset();
    ServerOptions options;
    options.client = limits;
    options.listen = {"127.0.0.1:0", "unix:" + directory_.File("socket")};
    options.store = "memory:";
    options.tls = server_files_;
    options.tls.reload_seconds = 1;
    options.admins = {"root"};
    auto catalog = VolumeCatalog::Open(NewMemoryPageStore());
    auto server = Server::Start(options, *std::move(catalog));
    EXPECT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }

  std::unique_ptr<CertificateAuthority> NewAuthority(const std::string& file) {
    auto authority = CertificateAuthority::Create(directory_.File(file));
    EXPECT_TRUE(authority.ok()) << authority.status();
    return *std::move(authority);
  }

  TlsFiles IssueBy(CertificateAuthority& authority, const std::string& name,
                   const std::string& file, absl::Duration lasts = absl::Hours(1)) {
    const auto files = authority.Issue(name, directory_.File(file), absl::Now() + lasts);
    EXPECT_TRUE(files.ok()) << files.status();
    return *files;
  }

  // A client with a certificate of this name.
  TestClient& As(const std::string& identity) {
    std::unique_ptr<TestClient>& client = clients_[identity];
    if (client == nullptr) {
      const TlsFiles files =
          IssueBy(*authority_, identity, absl::StrCat("client", clients_.size()));
      client = std::make_unique<TestClient>(tcp(), CredentialsOf(files));
    }
    return *client;
  }

  absl::Status SetRole(TestClient& client, const std::string& name, const std::string& identity,
                       rpc::VolumeRole role) {
    rpc::SetVolumeRoleRequest request;
    request.set_name(name);
    request.set_identity(identity);
    request.set_role(role);
    rpc::Volume volume;
    return ToStatus(client.admin().SetVolumeRole(NewContext().get(), request, &volume));
  }

  static absl::Status Snapshot(TestClient& client, const std::string& volume,
                               const std::string& snapshot) {
    rpc::SnapshotVolumeRequest request;
    request.set_volume(volume);
    request.set_snapshot(snapshot);
    rpc::Volume made;
    return ToStatus(client.admin().SnapshotVolume(NewContext().get(), request, &made));
  }

  static absl::StatusOr<rpc::Volume> Clone(TestClient& client, const std::string& snapshot,
                                           const std::string& volume) {
    rpc::CloneVolumeRequest request;
    request.set_snapshot(snapshot);
    request.set_volume(volume);
    rpc::Volume made;
    absl::Status status = ToStatus(client.admin().CloneVolume(NewContext().get(), request, &made));
    if (!status.ok()) return status;
    return made;
  }

  static absl::Status Trim(TestClient& client, const std::string& name) {
    rpc::TrimVolumeRequest request;
    request.set_name(name);
    request.set_length_bytes(kPageSize);
    rpc::Volume volume;
    return ToStatus(client.admin().TrimVolume(NewContext().get(), request, &volume));
  }

  static absl::Status ClearWorkingSet(TestClient& client, const std::string& name) {
    rpc::ClearWorkingSetRequest request;
    request.set_name(name);
    rpc::ClearWorkingSetResponse response;
    return ToStatus(client.admin().ClearWorkingSet(NewContext().get(), request, &response));
  }

  static absl::Status MergeWorkingSet(TestClient& client, uint64_t id) {
    rpc::MergeWorkingSetRequest request;
    request.set_volume_id(id);
    request.mutable_pages()->add_runs(0);
    request.mutable_pages()->add_runs(1);
    rpc::MergeWorkingSetResponse response;
    return ToStatus(client.pages().MergeWorkingSet(NewContext().get(), request, &response));
  }

  static absl::Status GetWorkingSet(TestClient& client, uint64_t id) {
    rpc::GetWorkingSetRequest request;
    request.set_volume_id(id);
    rpc::GetWorkingSetResponse response;
    return ToStatus(client.pages().GetWorkingSet(NewContext().get(), request, &response));
  }

  static absl::Status Import(TestClient& client, const std::string& name) {
    rpc::ImportVolumeRequest::Begin begin;
    begin.set_name(name);
    begin.set_size_bytes(kPageSize);
    begin.set_replace(true);
    return client.Import(begin, {BatchOf(0, 1, 9)}).status();
  }

  static std::vector<std::string> List(TestClient& client) {
    rpc::ListVolumesResponse response;
    const absl::Status status = ToStatus(
        client.admin().ListVolumes(NewContext().get(), rpc::ListVolumesRequest(), &response));
    EXPECT_TRUE(status.ok()) << status;
    std::vector<std::string> names;
    for (const rpc::Volume& volume : response.volumes()) names.push_back(volume.name());
    return names;
  }

  // Every call that names a volume, or its id, and what each ends with.
  std::map<std::string, absl::Status> EveryCall(TestClient& client, const std::string& name,
                                                uint64_t id) {
    rpc::OpenVolumeResponse guessed;
    guessed.set_volume_id(id);
    guessed.set_epoch(1);
    return {
        {"open", client.Open(name, rpc::OpenVolumeRequest::READ).status()},
        {"open for writing", client.Open(name, rpc::OpenVolumeRequest::WRITE).status()},
        {"fetch", client.Fetch(id, 0, 1).status()},
        {"write", client.Write(guessed, BatchOf(0, 1, 9))},
        {"get working set", GetWorkingSet(client, id)},
        {"merge working set", MergeWorkingSet(client, id)},
        {"stat", client.Stat(name).status()},
        {"export", client.Export(name).status()},
        {"snapshot", Snapshot(client, name, "made")},
        {"clone", Clone(client, name, "made").status()},
        {"trim", Trim(client, name)},
        {"clear working set", ClearWorkingSet(client, name)},
        {"set role", SetRole(client, name, "mallory", rpc::VOLUME_ROLE_OWNER)},
        {"delete", client.Delete(name)},
    };
  }

  // alice's volume "secret", whose page 0 has version 1.
  rpc::OpenVolumeResponse MakeSecret() {
    EXPECT_TRUE(As("alice").Create("secret", kBytes).ok());
    const auto open = As("alice").Open("secret", rpc::OpenVolumeRequest::WRITE);
    EXPECT_TRUE(open.ok()) << open.status();
    EXPECT_TRUE(As("alice").Write(*open, BatchOf(0, 1, 1)).ok());
    return *open;
  }

  void ExpectFirstPage(uint64_t id, uint64_t version) {
    const auto pages = As("alice").Fetch(id, 0, 1);
    ASSERT_TRUE(pages.ok()) << pages.status();
    EXPECT_TRUE(pages->at(0) == PageOf(0, version));
  }

  const std::string& tcp() const { return server_->addresses()[0]; }
  const std::string& unix_address() const { return server_->addresses()[1]; }

  TemporaryDirectory directory_;
  std::unique_ptr<CertificateAuthority> authority_;
  TlsFiles server_files_;
  std::unique_ptr<Server> server_;
  std::map<std::string, std::unique_ptr<TestClient>> clients_;
};

// A connection that fails, and what is said of it at both ends.
class RefusedConnection : public AccessTest {
 protected:
  void ExpectRefused(std::shared_ptr<grpc::ChannelCredentials> credentials) {
    MakeSecret();
    const uint64_t before = As("root").Status().handshakes_failed_total();
    testing::internal::CaptureStderr();
    TestClient stranger(tcp(), std::move(credentials));
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
    rpc::StatVolumeRequest request;
    request.set_name("secret");
    rpc::Volume volume;
    const absl::Status status = ToStatus(stranger.admin().StatVolume(&context, request, &volume));
    EXPECT_STATUS(status, StatusCode::kUnavailable, "");
    EXPECT_EQ(status.message().find("secret"), absl::string_view::npos) << status;
    EXPECT_EQ(volume.size_bytes(), 0u);
    EXPECT_TRUE(As("root").WaitForStatus(
        [before](const rpc::ServerStatus& now) { return now.handshakes_failed_total() > before; }));
    const std::string log = testing::internal::GetCapturedStderr();
    EXPECT_NE(log.find("audit: identity=- call=connect outcome=refused"), std::string::npos) << log;
  }
};

TEST_F(RefusedConnection, WithoutACertificate) {
  ExpectRefused(CredentialsOf(server_files_, /*with_certificate=*/false));
}

TEST_F(RefusedConnection, WithACertificateThatHasExpired) {
  ExpectRefused(
      CredentialsOf(IssueBy(*authority_, "alice", "expired", absl::Duration(-absl::Hours(1)))));
}

TEST_F(RefusedConnection, WithACertificateOfAnotherAuthority) {
  const auto other = NewAuthority("other.pem");
  TlsFiles files = IssueBy(*other, "alice", "wrong");
  files.ca = server_files_.ca;
  ExpectRefused(CredentialsOf(files));
}

TEST_F(RefusedConnection, InPlaintext) { ExpectRefused(grpc::InsecureChannelCredentials()); }

// The right certificate, for another volume: not one call tells whether the volume is there.
TEST_F(AccessTest, AVolumeOfOthersLooksLikeNone) {
  const rpc::OpenVolumeResponse secret = MakeSecret();
  const uint64_t absent_id = secret.volume_id() + 1'000'000;
  const uint64_t before = As("root").Status().calls_refused_total();
  const auto there = EveryCall(As("bob"), "secret", secret.volume_id());
  const auto absent = EveryCall(As("bob"), "absent", absent_id);
  for (const auto& [call, status] : there) {
    EXPECT_STATUS(status, StatusCode::kPermissionDenied, "may use") << call;
    const absl::Status& other = absent.at(call);
    EXPECT_EQ(status.code(), other.code()) << call;
    EXPECT_EQ(
        absl::StrReplaceAll(status.message(),
                            {{absl::StrCat(secret.volume_id()), "ID"}, {"secret", "NAME"}}),
        absl::StrReplaceAll(other.message(), {{absl::StrCat(absent_id), "ID"}, {"absent", "NAME"}}))
        << call;
  }
  // An import would make the one that is not there.
  EXPECT_STATUS(Import(As("bob"), "secret"), StatusCode::kPermissionDenied, "there is no volume");
  EXPECT_STATUS(As("bob").Create("secret", kBytes).status(), StatusCode::kPermissionDenied,
                "there is no volume");
  EXPECT_EQ(List(As("bob")), std::vector<std::string>());
  EXPECT_EQ(As("root").Status().calls_refused_total(), before + there.size() * 2 + 2);
  ExpectFirstPage(secret.volume_id(), 1);
  EXPECT_TRUE(As("alice").Write(secret, BatchOf(0, 1, 2)).ok()) << "nobody has fenced the writer";
}

TEST_F(AccessTest, RefusalsAndChangesAreWrittenDown) {
  MakeSecret();
  As("bob");
  testing::internal::CaptureStderr();
  EXPECT_FALSE(As("bob").Open("secret", rpc::OpenVolumeRequest::READ).ok());
  EXPECT_TRUE(As("alice").Open("secret", rpc::OpenVolumeRequest::WRITE).ok());
  EXPECT_TRUE(As("alice").Stat("secret").ok());
  EXPECT_FALSE(As("bob").Delete("two\nlines").ok());
  const std::string log = testing::internal::GetCapturedStderr();
  for (const char* part : {"audit: identity=bob peer=ipv4:127.0.0.1:",
                           "call=OpenVolume(read) volume=\"secret\" outcome=refused",
                           "audit: identity=alice peer=ipv4:127.0.0.1:",
                           "call=OpenVolume(write) volume=\"secret\" outcome=ok",
                           "call=DeleteVolume volume=\"two\\nlines\" outcome=refused"}) {
    EXPECT_NE(log.find(part), std::string::npos) << part << " is not in:\n" << log;
  }
  EXPECT_EQ(log.find("StatVolume"), std::string::npos) << "who only looks has no line:\n" << log;
}

// Of what a client makes and owns; administrators have none.
TEST_F(AccessTest, WhatAClientStoresHasLimits) {
  StartServer({.max_volume_bytes = kBytes, .quota_bytes = 20 * kPageSize});
  EXPECT_STATUS(As("alice").Create("large", kBytes + kPageSize).status(),
                StatusCode::kResourceExhausted, "(--client-volume-size)");
  EXPECT_TRUE(As("root").Create("large", 2 * kBytes).ok());
  const rpc::OpenVolumeResponse secret = MakeSecret();
  ASSERT_TRUE(SetRole(As("alice"), "secret", "bob", rpc::VOLUME_ROLE_WRITER).ok());
  EXPECT_TRUE(As("alice").Write(secret, BatchOf(0, 32, 1, Codec::kRaw)).ok());
  // Now and then it is looked at what she has, and then nobody may add to it.
  absl::Status refused;
  for (const absl::Time patience_ends = absl::Now() + absl::Seconds(30);
       refused.ok() && absl::Now() < patience_ends; absl::SleepFor(absl::Milliseconds(20))) {
    refused = As("alice").Write(secret, BatchOf(0, 1, 2, Codec::kRaw));
  }
  EXPECT_STATUS(refused, StatusCode::kResourceExhausted, "the volumes of \"alice\" take ");
  const auto open = As("bob").Open("secret", rpc::OpenVolumeRequest::WRITE);
  ASSERT_TRUE(open.ok()) << open.status();
  EXPECT_STATUS(As("bob").Write(*open, BatchOf(0, 1, 2)), StatusCode::kResourceExhausted,
                "of \"alice\"");
  EXPECT_STATUS(As("alice").Create("more", kPageSize).status(), StatusCode::kResourceExhausted,
                "(--client-quota)");
  EXPECT_STATUS(Import(As("alice"), "secret"), StatusCode::kResourceExhausted, "(--client-quota)");
  EXPECT_TRUE(As("bob").Create("his", kPageSize).ok());
  EXPECT_TRUE(As("bob").Write(*open, BatchOf(0, 1, 0)).ok()) << "zeros, which give back";
  ASSERT_TRUE(As("alice").Delete("secret").ok());
  absl::Status again = absl::ResourceExhaustedError("not asked");
  for (const absl::Time patience_ends = absl::Now() + absl::Seconds(30);
       !again.ok() && absl::Now() < patience_ends; absl::SleepFor(absl::Milliseconds(20))) {
    again = As("alice").Create("more", kPageSize).status();
  }
  EXPECT_EQ(again, absl::OkStatus());
}

// Of each client, over all of its connections.
TEST_F(AccessTest, AClientHasOnlySoManyStreams) {
  StartServer({.max_streams = 2});
  const rpc::OpenVolumeResponse secret = MakeSecret();
  ASSERT_TRUE(SetRole(As("alice"), "secret", "bob", rpc::VOLUME_ROLE_READER).ok());
  TestClient second(tcp(), CredentialsOf(IssueBy(*authority_, "alice", "second")));
  const rpc::FetchRequest request = FetchOf(1, secret.volume_id(), 0, 1);
  auto one = As("alice").NewFetchStream();
  auto two = second.NewFetchStream();
  ASSERT_TRUE(one->Call(request).ok());
  ASSERT_TRUE(two->Call(request).ok());
  EXPECT_STATUS(second.NewFetchStream()->Call(request).status(), StatusCode::kAborted,
                "client \"alice\" has 2 streams open");
  EXPECT_TRUE(As("bob").Fetch(secret.volume_id(), 0, 1).ok());
  one->HalfClose();
  EXPECT_EQ(one->Finish(), absl::OkStatus());
  absl::Status again = absl::AbortedError("not asked");
  for (const absl::Time patience_ends = absl::Now() + absl::Seconds(30);
       !again.ok() && absl::Now() < patience_ends;) {
    again = second.NewFetchStream()->Call(request).status();
  }
  EXPECT_EQ(again, absl::OkStatus());
}

TEST_F(AccessTest, AReaderReadsAndAWriterWrites) {
  const rpc::OpenVolumeResponse secret = MakeSecret();
  const uint64_t id = secret.volume_id();
  ASSERT_TRUE(SetRole(As("alice"), "secret", "bob", rpc::VOLUME_ROLE_READER).ok());
  EXPECT_TRUE(As("bob").Open("secret", rpc::OpenVolumeRequest::READ).ok());
  EXPECT_TRUE(As("bob").Fetch(id, 0, 1).ok());
  EXPECT_TRUE(As("bob").Export("secret").ok());
  EXPECT_TRUE(GetWorkingSet(As("bob"), id).ok());
  EXPECT_EQ(List(As("bob")), std::vector<std::string>{"secret"});
  for (const absl::Status& status :
       {As("bob").Open("secret", rpc::OpenVolumeRequest::WRITE).status(),
        As("bob").Write(secret, BatchOf(0, 1, 9)), Trim(As("bob"), "secret"),
        Import(As("bob"), "secret"), Snapshot(As("bob"), "secret", "mine"),
        MergeWorkingSet(As("bob"), id), ClearWorkingSet(As("bob"), "secret")}) {
    EXPECT_STATUS(status, StatusCode::kPermissionDenied, "is its reader");
  }
  ExpectFirstPage(id, 1);

  ASSERT_TRUE(SetRole(As("alice"), "secret", "bob", rpc::VOLUME_ROLE_WRITER).ok());
  const auto open = As("bob").Open("secret", rpc::OpenVolumeRequest::WRITE);
  ASSERT_TRUE(open.ok()) << open.status();
  EXPECT_TRUE(As("bob").Write(*open, BatchOf(0, 1, 2)).ok());
  EXPECT_TRUE(MergeWorkingSet(As("bob"), id).ok());
  EXPECT_TRUE(Trim(As("bob"), "secret").ok());
  EXPECT_STATUS(As("bob").Delete("secret"), StatusCode::kPermissionDenied, "is its writer");
  EXPECT_STATUS(SetRole(As("bob"), "secret", "bob", rpc::VOLUME_ROLE_OWNER),
                StatusCode::kPermissionDenied, "is its writer");

  ASSERT_TRUE(SetRole(As("alice"), "secret", "bob", rpc::VOLUME_ROLE_OWNER).ok());
  EXPECT_TRUE(As("bob").Delete("secret").ok());
}

// A stream that is open learns of it with its next request.
TEST_F(AccessTest, ARoleThatIsTakenBackEndsAtOnce) {
  const rpc::OpenVolumeResponse secret = MakeSecret();
  ASSERT_TRUE(SetRole(As("alice"), "secret", "bob", rpc::VOLUME_ROLE_WRITER).ok());
  const auto open = As("bob").Open("secret", rpc::OpenVolumeRequest::WRITE);
  ASSERT_TRUE(open.ok()) << open.status();
  const auto fetches = As("bob").NewFetchStream();
  const auto writes = As("bob").NewWriteStream();
  EXPECT_TRUE(fetches->Call(FetchOf(1, secret.volume_id(), 0, 1)).ok());
  EXPECT_TRUE(writes->Call(WriteOf(1, *open, BatchOf(0, 1, 2))).ok());
  ASSERT_TRUE(SetRole(As("alice"), "secret", "bob", rpc::VOLUME_ROLE_NONE).ok());
  EXPECT_STATUS(fetches->Call(FetchOf(2, secret.volume_id(), 0, 1)).status(),
                StatusCode::kPermissionDenied, "may use");
  EXPECT_STATUS(writes->Call(WriteOf(2, *open, BatchOf(0, 1, 3))).status(),
                StatusCode::kPermissionDenied, "may use");
  ExpectFirstPage(secret.volume_id(), 2);
}

TEST_F(AccessTest, WhoMakesACopyOwnsIt) {
  MakeSecret();
  ASSERT_TRUE(Snapshot(As("alice"), "secret", "frozen").ok());
  EXPECT_STATUS(Clone(As("bob"), "frozen", "copy").status(), StatusCode::kPermissionDenied, "");
  ASSERT_TRUE(SetRole(As("alice"), "frozen", "bob", rpc::VOLUME_ROLE_READER).ok());
  const absl::StatusOr<rpc::Volume> copy = Clone(As("bob"), "frozen", "copy");
  ASSERT_TRUE(copy.ok()) << copy.status();
  EXPECT_EQ(copy->owner(), "bob");
  EXPECT_EQ(copy->parent(), "frozen");
  EXPECT_FALSE(As("alice").Stat("copy").ok());
  // A reader sees who owns it, and neither what others may nor a name that it must not know.
  ASSERT_TRUE(SetRole(As("bob"), "copy", "carol", rpc::VOLUME_ROLE_READER).ok());
  const absl::StatusOr<rpc::Volume> seen = As("carol").Stat("copy");
  ASSERT_TRUE(seen.ok()) << seen.status();
  EXPECT_EQ(seen->owner(), "bob");
  EXPECT_EQ(seen->parent(), "");
  EXPECT_EQ(seen->grants_size(), 0);
  EXPECT_EQ(As("bob").Stat("copy")->grants_size(), 1);
}

TEST_F(AccessTest, OnlyAnAdministratorMayDoEverything) {
  const rpc::OpenVolumeResponse secret = MakeSecret();
  rpc::ServerStatus status;
  EXPECT_STATUS(ToStatus(As("alice").admin().GetServerStatus(
                    NewContext().get(), rpc::GetServerStatusRequest(), &status)),
                StatusCode::kPermissionDenied, "no administrator");
  EXPECT_EQ(status.volumes(), 0u);
  EXPECT_EQ(As("root").Status().volumes(), 1u);
  EXPECT_EQ(List(As("root")), std::vector<std::string>{"secret"});
  EXPECT_STATUS(As("root").Stat("absent").status(), StatusCode::kNotFound, "absent");
  EXPECT_TRUE(As("root").Fetch(secret.volume_id(), 0, 1).ok());
  EXPECT_TRUE(SetRole(As("root"), "secret", "alice", rpc::VOLUME_ROLE_NONE).ok());
  EXPECT_FALSE(As("alice").Stat("secret").ok()) << "the owner, too, can be sent away";
  EXPECT_TRUE(As("root").Delete("secret").ok());
}

// Who comes through the Unix socket is a client like others, and not an administrator by itself.
TEST_F(AccessTest, TheUnixSocketHasANameOfItsOwn) {
  MakeSecret();
  TestClient local(unix_address());
  EXPECT_STATUS(local.Stat("secret").status(), StatusCode::kPermissionDenied, "@local");
  ASSERT_TRUE(SetRole(As("alice"), "secret", "@local", rpc::VOLUME_ROLE_READER).ok());
  EXPECT_TRUE(local.Stat("secret").ok());
  EXPECT_FALSE(local.Open("secret", rpc::OpenVolumeRequest::WRITE).ok());
}

TEST_F(AccessTest, ACertificateOfNoProperNameIsOfNobody) {
  for (const std::string& name : {std::string("@local"), std::string("two words")}) {
    EXPECT_STATUS(As(name).Create("mine", kBytes).status(), StatusCode::kPermissionDenied,
                  "without a name")
        << name;
  }
}

// What is open goes on; new connections are made with what lies there now.
TEST_F(AccessTest, NewFilesAreUsedByNewConnections) {
  const rpc::OpenVolumeResponse secret = MakeSecret();
  const auto stream = As("alice").NewFetchStream();
  EXPECT_TRUE(stream->Call(FetchOf(1, secret.volume_id(), 0, 1)).ok());

  const auto next = NewAuthority("next.pem");
  const TlsFiles alice = IssueBy(*next, "alice", "alice-next");
  IssueBy(*next, "server", "server");
  ASSERT_EQ(rename(alice.ca.c_str(), server_files_.ca.c_str()), 0);
  TlsFiles files = alice;
  files.ca = server_files_.ca;
  // The server looks once a second.
  absl::Status status = absl::UnknownError("not asked");
  const absl::Time patience_ends = absl::Now() + absl::Seconds(30);
  while (!status.ok() && absl::Now() < patience_ends) {
    TestClient newcomer(tcp(), CredentialsOf(files));
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(1));
    rpc::StatVolumeRequest request;
    request.set_name("secret");
    rpc::Volume volume;
    status = ToStatus(newcomer.admin().StatVolume(&context, request, &volume));
  }
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_TRUE(stream->Call(FetchOf(2, secret.volume_id(), 0, 1)).ok()) << "the old one goes on";
  EXPECT_TRUE(As("alice").Stat("secret").ok());

  // A new connection with the old files is one of a stranger now.
  TlsFiles old = IssueBy(*authority_, "alice", "alice-old");
  old.ca = server_files_.ca;
  TestClient late(tcp(), CredentialsOf(old));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
  rpc::ListVolumesResponse response;
  EXPECT_STATUS(ToStatus(late.admin().ListVolumes(&context, rpc::ListVolumesRequest(), &response)),
                StatusCode::kUnavailable, "");
}

absl::Status StartWith(ServerOptions options) {
  auto catalog = VolumeCatalog::Open(NewMemoryPageStore());
  return Server::Start(options, *std::move(catalog)).status();
}

TEST(Plaintext, IsNotSpokenToOtherHostsUnlessTold) {
  for (const char* address : {"0.0.0.0:0", "[::]:0"}) {
    EXPECT_STATUS(StartWith({.listen = {address}}), StatusCode::kInvalidArgument,
                  "--allow-plaintext");
  }
  EXPECT_TRUE(StartWith({.listen = {"0.0.0.0:0"}, .allow_plaintext = true}).ok());
  for (const char* address : {"127.0.0.1:0", "localhost:0"}) {
    EXPECT_TRUE(StartWith({.listen = {address}}).ok()) << address;
  }
}

TEST(TlsOptions, AreRefusedWithAReason) {
  const TemporaryDirectory directory;
  const auto authority = CertificateAuthority::Create(directory.File("ca.pem"));
  ASSERT_TRUE(authority.ok()) << authority.status();
  const absl::Time later = absl::Now() + absl::Hours(1);
  const TlsFiles good = *(*authority)->Issue("server", directory.File("a"), later);
  const TlsFiles other = *(*authority)->Issue("server", directory.File("b"), later);
  const auto start = [](TlsFiles tls, std::vector<std::string> admins = {}) {
    return StartWith(
        {.listen = {"127.0.0.1:0"}, .tls = std::move(tls), .admins = std::move(admins)});
  };
  EXPECT_TRUE(start(good, {"root"}).ok());
  TlsFiles wrong = good;
  wrong.key = other.key;
  EXPECT_STATUS(start(wrong), StatusCode::kInvalidArgument, "is not the key of");
  wrong = good;
  wrong.ca = directory.File("none.pem");
  EXPECT_STATUS(start(wrong), StatusCode::kInvalidArgument, "none.pem: No such file");
  wrong = good;
  wrong.certificate = good.key;
  EXPECT_STATUS(start(wrong), StatusCode::kInvalidArgument, "holds no certificate");
  wrong = good;
  wrong.ca.clear();
  EXPECT_STATUS(start(wrong), StatusCode::kInvalidArgument, "all three");
  EXPECT_STATUS(start(good, {"two words"}), StatusCode::kInvalidArgument, "two words");
  EXPECT_STATUS(start({}, {"root"}), StatusCode::kInvalidArgument, "--admin");
}

}  // namespace
}  // namespace faultline
