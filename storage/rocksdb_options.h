// SPDX-License-Identifier: Apache-2.0
//
// How Faultline sets RocksDB up, and what its keys and errors mean. Included by the rocksdb_*.cc
// units only.
#ifndef FAULTLINE_STORAGE_ROCKSDB_OPTIONS_H_
#define FAULTLINE_STORAGE_ROCKSDB_OPTIONS_H_

#include <absl/status/status.h>
#include <absl/strings/string_view.h>
#include <rocksdb/options.h>

#include <array>
#include <cstdint>
#include <string>

#include "proto/page.h"
#include "storage/page_store.h"

namespace faultline {

// Key of a page: layer and page index, big endian, so that a layer is one run of keys and its pages
// stand in it in their order.
class PageKey {
 public:
  static constexpr size_t kBytes = 16;

  PageKey() = default;
  PageKey(LayerId layer, PageIndex page);

  rocksdb::Slice slice() const { return {bytes_.data(), bytes_.size()}; }

  // The page that `key` stands for, where it is a key of `layer`; DATA_LOSS otherwise.
  static absl::StatusOr<PageIndex> PageOf(LayerId layer, const rocksdb::Slice& key);

 private:
  std::array<char, kBytes> bytes_{};
};

// How `memory_bytes` is divided.
struct RocksMemory {
  uint64_t write_buffer_bytes;  // all memtables together
  uint64_t block_cache_bytes;   // index and filter partitions first, then data blocks

  static RocksMemory Divide(uint64_t memory_bytes);
};

rocksdb::DBOptions MakeDbOptions(const RocksMemory& memory);
rocksdb::ColumnFamilyOptions MakePageFamilyOptions(const RocksMemory& memory);
rocksdb::ColumnFamilyOptions MakeMetaFamilyOptions();

bool IsDiskFull(const rocksdb::Status& status);

// What a failure of RocksDB means to a caller of PageStore. `doing` and `path` become part of the
// message. OK for OK.
absl::Status FromRocks(absl::string_view doing, absl::string_view path,
                       const rocksdb::Status& status);

}  // namespace faultline

#endif  // FAULTLINE_STORAGE_ROCKSDB_OPTIONS_H_
