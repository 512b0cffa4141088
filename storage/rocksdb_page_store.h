// SPDX-License-Identifier: Apache-2.0
//
// The default store: an embedded RocksDB.
//
//   DIR/db       the database: pages in the default column family, metadata in "meta"
//   DIR/staging  files of bulk loads under way; emptied when the store is opened
//   DIR/reserve  bytes that are given up when the disk is full, so that deleting volumes, which
//                writes a little before it frees much, still works
//
// Threads: one makes Durability::kInterval writes durable, one reclaims the space of deleted layers
// and gets the database going again after the disk was full; and RocksDB's own.
#ifndef FAULTLINE_STORAGE_ROCKSDB_PAGE_STORE_H_
#define FAULTLINE_STORAGE_ROCKSDB_PAGE_STORE_H_

#include <absl/status/statusor.h>

#include <memory>
#include <string>

#include "storage/page_store.h"

namespace faultline {

// Opens the store in `dir`, which is made if only its last part is missing. Errors as for
// OpenPageStore(); DATA_LOSS where what is stored there is damaged.
absl::StatusOr<std::unique_ptr<PageStore>> OpenRocksDbPageStore(const std::string& dir,
                                                                const PageStoreOptions& options);

}  // namespace faultline

#endif  // FAULTLINE_STORAGE_ROCKSDB_PAGE_STORE_H_
