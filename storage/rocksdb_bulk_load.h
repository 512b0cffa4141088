// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_STORAGE_ROCKSDB_BULK_LOAD_H_
#define FAULTLINE_STORAGE_ROCKSDB_BULK_LOAD_H_

#include <absl/status/statusor.h>
#include <rocksdb/db.h>

#include <functional>
#include <memory>
#include <string>

#include "storage/page_store.h"

namespace faultline {

// Where a load goes, and what it needs.
struct RocksBulkLoadTarget {
  rocksdb::DB* db;  // borrowed, must outlive the load
  rocksdb::ColumnFamilyHandle* family;
  rocksdb::Options options;  // of the family
  LayerId layer;
  std::string staging;  // directory of this load, to be made; on the file system of the database
  std::string path;     // of the store, for messages
  // Runs a change of the database; where the disk was full before and has room now, once more.
  std::function<rocksdb::Status(const std::function<rocksdb::Status()>&)> change;
  // False once the database has stopped and was resumed: RocksDB 7.8 then never again gets a file
  // number for ingestion (ErrorHandler::ClearBGError leaves is_db_stopped_ set, and
  // DBImpl::ReserveFileNumbersBeforeIngestion takes that for an error, which is OK by then).
  std::function<bool()> may_ingest;
};

// Writes sorted table files beside the database and hands them over to it at Commit(): no log, no
// memtable, no compaction. Where the database cannot take them, their pages are written as all
// others are.
absl::StatusOr<std::unique_ptr<BulkLoad>> StartRocksBulkLoad(RocksBulkLoadTarget target);

}  // namespace faultline

#endif  // FAULTLINE_STORAGE_ROCKSDB_BULK_LOAD_H_
