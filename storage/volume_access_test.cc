// SPDX-License-Identifier: Apache-2.0
#include "storage/volume_access.h"

#include <absl/strings/str_cat.h>
#include <gtest/gtest.h>

#include "storage/forwarding_page_store.h"
#include "storage/memory_page_store.h"
#include "storage/storage_testing.h"
#include "storage/volume_catalog.h"

namespace faultline {
namespace {

using absl::StatusCode;

constexpr uint64_t kDiskBytes = 64 * kPageSize;

TEST(VolumeAccess, TheOwnerHasEveryRoleAndOthersWhatWasGranted) {
  VolumeAccess access{.owner = "alice", .grants = {}};
  ASSERT_EQ(access.SetRole("bob", VolumeRole::kWriter), absl::OkStatus());
  EXPECT_EQ(access.RoleOf("alice"), VolumeRole::kOwner);
  EXPECT_EQ(access.RoleOf("bob"), VolumeRole::kWriter);
  EXPECT_EQ(access.RoleOf("carol"), VolumeRole::kNone);
  ASSERT_EQ(access.SetRole("bob", VolumeRole::kNone), absl::OkStatus());
  EXPECT_EQ(access.RoleOf("bob"), VolumeRole::kNone);
  EXPECT_TRUE(access.grants.empty());
}

TEST(VolumeAccess, AnOwnerWhoTakesLessOwnsItNoMore) {
  VolumeAccess access{.owner = "alice", .grants = {}};
  ASSERT_EQ(access.SetRole("alice", VolumeRole::kOwner), absl::OkStatus());
  EXPECT_EQ(access.owner, "alice");
  ASSERT_EQ(access.SetRole("alice", VolumeRole::kReader), absl::OkStatus());
  EXPECT_EQ(access.owner, "");
  EXPECT_EQ(access.RoleOf("alice"), VolumeRole::kReader);
}

// Else a volume without an owner would be that of every client without a name.
TEST(VolumeAccess, NobodyHasNoRole) {
  EXPECT_EQ(VolumeAccess().RoleOf(""), VolumeRole::kNone);
  EXPECT_FALSE(VolumeAccess().SetRole("", VolumeRole::kReader).ok());
}

TEST(VolumeAccess, GrantsHaveALimit) {
  VolumeAccess access;
  for (size_t i = 0; i < kMaxVolumeGrants; ++i) {
    ASSERT_EQ(access.SetRole(absl::StrCat("client", i), VolumeRole::kReader), absl::OkStatus());
  }
  EXPECT_EQ(access.SetRole("one.more", VolumeRole::kReader).code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(access.SetRole("client0", VolumeRole::kWriter), absl::OkStatus());
}

TEST(CheckIdentity, TakesWhatCanStandInALogLine) {
  for (const char* good : {"a", "agent-1.example.org", "spiffe://x/y", "@local", "a@b"}) {
    EXPECT_EQ(CheckIdentity(good), absl::OkStatus()) << good;
  }
  const std::string nul("a\0b", 3);
  for (const std::string& bad : {std::string(), std::string("two words"), std::string("a\nb"), nul,
                                 std::string("\"a\""), std::string(129, 'a')}) {
    EXPECT_EQ(CheckIdentity(bad).code(), StatusCode::kInvalidArgument) << bad;
  }
}

class CatalogAccessTest : public testing::Test {
 protected:
  CatalogAccessTest() { Reopen(); }

  void Reopen() {
    catalog_.reset();
    auto catalog = VolumeCatalog::Open(std::make_unique<ForwardingPageStore>(store_));
    ASSERT_STATUS_OK(catalog);
    catalog_ = *std::move(catalog);
  }

  VolumeInfo InfoOf(absl::string_view name) { return (*catalog_->Find(name))->info(); }

  const std::shared_ptr<PageStore> store_ = NewMemoryPageStore();
  std::unique_ptr<VolumeCatalog> catalog_;
};

TEST_F(CatalogAccessTest, RolesAreKept) {
  ASSERT_STATUS_OK(catalog_->Create("disk", kDiskBytes, Durability::kSync, "alice"));
  const uint64_t version = catalog_->access_version();
  ASSERT_STATUS_OK(catalog_->SetRole("disk", "bob", VolumeRole::kReader));
  ASSERT_STATUS_OK(catalog_->SetRole("disk", "carol", VolumeRole::kOwner));
  EXPECT_GT(catalog_->access_version(), version);
  ASSERT_STATUS_OK(catalog_->TakeEpoch("disk"));
  const VolumeAccess before = InfoOf("disk").access;
  EXPECT_EQ(before.owner, "alice");
  EXPECT_EQ(before.RoleOf("bob"), VolumeRole::kReader);
  Reopen();
  EXPECT_TRUE(InfoOf("disk").access == before);
}

TEST_F(CatalogAccessTest, ACopyHasItsOwnOwnerAndNoGrants) {
  ASSERT_STATUS_OK(catalog_->Create("disk", kDiskBytes, Durability::kSync, "alice"));
  ASSERT_STATUS_OK(catalog_->SetRole("disk", "bob", VolumeRole::kOwner));
  ASSERT_STATUS_OK(catalog_->Snapshot("disk", "frozen", "carol"));
  ASSERT_STATUS_OK(catalog_->SetRole("frozen", "dave", VolumeRole::kReader));
  ASSERT_STATUS_OK(catalog_->Clone("frozen", "copy", "dave"));
  Reopen();
  EXPECT_TRUE(InfoOf("frozen").access ==
              (VolumeAccess{.owner = "carol", .grants = {{"dave", VolumeRole::kReader}}}));
  EXPECT_TRUE(InfoOf("copy").access == (VolumeAccess{.owner = "dave", .grants = {}}));
  EXPECT_EQ(InfoOf("disk").access.owner, "alice");
}

// So that a role that was looked up is not used on what somebody else has put in the same place.
TEST_F(CatalogAccessTest, AnotherVolumeOfTheNameIsNotTouched) {
  ASSERT_STATUS_OK(catalog_->Create("disk", kDiskBytes, Durability::kSync, "alice"));
  const uint64_t old_id = InfoOf("disk").id;
  ASSERT_EQ(catalog_->Delete("disk", old_id), absl::OkStatus());
  ASSERT_STATUS_OK(catalog_->Create("disk", kDiskBytes, Durability::kSync, "bob"));
  for (const absl::Status& status :
       {catalog_->Delete("disk", old_id), catalog_->ClearWorkingSet("disk", old_id),
        catalog_->TakeEpoch("disk", old_id).status(),
        catalog_->Snapshot("disk", "s", "alice", old_id).status(),
        catalog_->SetRole("disk", "alice", VolumeRole::kOwner, old_id).status()}) {
    EXPECT_EQ(status.code(), StatusCode::kNotFound) << status;
  }
  for (const uint64_t id : {uint64_t{0}, old_id}) {
    const VolumeCatalog::ImportOptions options{.size_bytes = kDiskBytes,
                                               .durability = Durability::kSync,
                                               .replace = true,
                                               .owner = "alice",
                                               .only_id = id};
    EXPECT_EQ(catalog_->StartImport("disk", options).status().code(), StatusCode::kAlreadyExists);
  }
  EXPECT_TRUE(InfoOf("disk").access == (VolumeAccess{.owner = "bob", .grants = {}}));
  EXPECT_EQ(InfoOf("disk").epoch, 0u);
}

}  // namespace
}  // namespace faultline
