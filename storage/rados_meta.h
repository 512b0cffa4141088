// SPDX-License-Identifier: Apache-2.0
//
// RadosMeta: the metadata of a store in RADOS, which its object has with a version, and what else
// is listed there.
#ifndef FAULTLINE_STORAGE_RADOS_META_H_
#define FAULTLINE_STORAGE_RADOS_META_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <atomic>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "storage/page_store.h"
#include "storage/rados_client.h"
#include "storage/rados_lease.h"

namespace faultline {

// Thread-safe. The methods are those of a shared PageStore.
class RadosMeta {
 public:
  using Entries = std::vector<std::pair<std::string, std::string>>;

  // Both are borrowed.
  RadosMeta(RadosClient* client, RadosLease* lease) : client_(client), lease_(lease) {}

  // Makes the object, where it is not there. Call it first.
  absl::Status Init();
  absl::StatusOr<Entries> Read();
  absl::StatusOr<std::optional<std::string>> ReadKey(absl::string_view key);
  absl::Status Write(std::span<const MetaChange> changes);
  absl::StatusOr<bool> IsCurrent();
  bool IsKnownToBeCurrent() { return lease_->HoldsMeta(version_); }

  // All keys of the object that begin with `prefix`, without it.
  absl::StatusOr<Entries> ReadKeys(absl::string_view prefix);

 private:
  absl::StatusOr<uint64_t> ReadVersion();

  RadosClient* const client_;
  RadosLease* const lease_;
  std::atomic<uint64_t> version_ = 0;  // that was read or written last
};

}  // namespace faultline

#endif  // FAULTLINE_STORAGE_RADOS_META_H_
