// SPDX-License-Identifier: Apache-2.0
#include "storage/rados_meta.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/strip.h>

#include <cerrno>
#include <map>
#include <set>

namespace faultline {
namespace {

constexpr uint64_t kMetaAtATime = 1024;
constexpr absl::string_view kMetaPrefix = "m.";
// Of the metadata; a program that knows nothing of several servers refuses it.
constexpr absl::string_view kFormatKey = "m.format.several-servers";

}  // namespace

absl::Status RadosMeta::Init() {
  // A program that let one process at a time have a namespace may be there still; it takes the
  // format for damage from here on.
  if (absl::Status status = client_->FenceOwner(kRadosStoreObject); !status.ok()) return status;
  const int created = client_->io().create(kRadosStoreObject, /*exclusive=*/true);
  if (created < 0 && created != -EEXIST) return client_->Failed("making the metadata", created);
  RadosChange format{.object = kRadosStoreObject,
                     .fill =
                         [](auto* op) {
                           op->omap_set({{std::string(kFormatKey), librados::bufferlist()}});
                         },
                     .frees = true};
  if (absl::Status status = client_->Apply("opening", format); !status.ok()) return status;
  const absl::StatusOr<uint64_t> version = ReadVersion();
  if (version.ok()) version_ = *version;
  return version.status();
}

absl::StatusOr<std::vector<std::pair<std::string, std::string>>> RadosMeta::ReadKeys(
    absl::string_view prefix) {
  std::vector<std::pair<std::string, std::string>> all;
  std::string after;
  for (bool more = true; more;) {
    std::map<std::string, librados::bufferlist> values;
    const int result = client_->io().omap_get_vals2(kRadosStoreObject, after, std::string(prefix),
                                                    kMetaAtATime, &values, &more);
    if (result < 0) return client_->Failed("reading the metadata", result);
    for (auto& [key, value] : values) {
      all.emplace_back(absl::StripPrefix(key, prefix), value.to_str());
      after = key;
    }
  }
  return all;
}

absl::StatusOr<uint64_t> RadosMeta::ReadVersion() {
  const absl::StatusOr<RadosClient::StoreState> state = client_->ReadStoreState();
  if (!state.ok()) return state.status();
  return state->version;
}

absl::StatusOr<bool> RadosMeta::IsCurrent() {
  const uint64_t known = version_;
  if (lease_->HoldsMeta(known)) return true;
  const absl::StatusOr<uint64_t> version = ReadVersion();
  if (!version.ok()) return version.status();
  return *version == known;
}

absl::StatusOr<std::optional<std::string>> RadosMeta::ReadKey(absl::string_view key) {
  const std::string stored_key = absl::StrCat(kMetaPrefix, key);
  std::map<std::string, librados::bufferlist> values;
  const int result = client_->io().omap_get_vals_by_keys(kRadosStoreObject, {stored_key}, &values);
  if (result < 0) return client_->Failed("reading the metadata", result);
  const auto found = values.find(stored_key);
  if (found == values.end()) return std::nullopt;
  return found->second.to_str();
}

absl::StatusOr<std::vector<std::pair<std::string, std::string>>> RadosMeta::Read() {
  absl::StatusOr<uint64_t> version = ReadVersion();
  while (version.ok()) {
    auto meta = ReadKeys(kMetaPrefix);
    if (!meta.ok()) return meta.status();
    // It takes several operations, between which others may have changed it.
    const absl::StatusOr<uint64_t> after = ReadVersion();
    if (after.ok() && *after == *version) {
      version_ = *version;
      std::erase_if(*meta, [](const auto& entry) {
        return absl::StrCat(kMetaPrefix, entry.first) == kFormatKey;
      });
      return meta;
    }
    version = after;
  }
  return version.status();
}

absl::Status RadosMeta::Write(std::span<const MetaChange> changes) {
  std::map<std::string, librados::bufferlist> set;
  std::set<std::string> removed;
  for (const MetaChange& change : changes) {
    const std::string key = absl::StrCat(kMetaPrefix, change.key);
    set.erase(key);
    removed.erase(key);
    if (change.value.has_value()) {
      set[key].append(*change.value);
    } else {
      removed.insert(key);
    }
  }
  const uint64_t version = version_;
  RadosChange change;
  change.object = kRadosStoreObject;
  change.fill = [&](auto* op) {
    librados::bufferlist next;
    next.append(absl::StrCat(version + 1));
    op->cmpxattr(kRadosMetaVersion, LIBRADOS_CMPXATTR_OP_EQ, version);
    op->setxattr(kRadosMetaVersion, next);
    if (!set.empty()) op->omap_set(set);
    if (!removed.empty()) op->omap_rm_keys(removed);
  };
  // A few bytes, and what deletes a volume must get through.
  change.frees = true;
  absl::Status status = client_->Apply("writing the metadata", change);
  if (absl::IsAborted(status)) lease_->End();
  if (!status.ok()) return status;
  version_ = version + 1;
  // By a version alone nothing has become different.
  if (!changes.empty()) lease_->EndOthers();
  return absl::OkStatus();
}

}  // namespace faultline
