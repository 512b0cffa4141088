// SPDX-License-Identifier: Apache-2.0
#include "storage/rocksdb_options.h"

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <rocksdb/cache.h>
#include <rocksdb/env.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/table.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <memory>
#include <thread>

#include "proto/log.h"

namespace faultline {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

void StoreBigEndian(uint64_t value, char* out) {
  for (int i = 7; i >= 0; --i) {
    out[i] = static_cast<char>(value & 0xff);
    value >>= 8;
  }
}

uint64_t LoadBigEndian(const char* in) {
  uint64_t value = 0;
  for (int i = 0; i < 8; ++i) value = value << 8 | static_cast<uint8_t>(in[i]);
  return value;
}

// Table files that may be open at once: half of what the process may open, for the rest of it needs
// descriptors too.
int MaxOpenFiles() {
  constexpr rlim_t kMost = 8192;
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 256;
  return static_cast<int>(std::clamp<rlim_t>(limit.rlim_cur / 2, 64, kMost));
}

// What RocksDB has to say goes into our log. Its own would be a file beside the pages, and where
// the disk is full, 7.8 built with assertions (as Debian's is) aborts at the second line that it
// cannot write there.
class OurLog final : public rocksdb::Logger {
 public:
  OurLog() : Logger(rocksdb::InfoLogLevel::WARN_LEVEL) {}

  using Logger::Logv;
  // Only its banner at the start comes without a level, or with a lower one than is asked for.
  void Logv(const char*, va_list) override {}
  // Debug, since what concerns us comes as a status, or to the store's listener.
  void Logv(rocksdb::InfoLogLevel level, const char* format, va_list arguments) override {
    if (level < GetInfoLogLevel()) return;
    char line[1024];
    vsnprintf(line, sizeof line, format, arguments);
    LogDebug(absl::StrCat("RocksDB: ", line));
  }
};

}  // namespace

PageKey::PageKey(LayerId layer, PageIndex page) {
  StoreBigEndian(layer.raw(), bytes_.data());
  StoreBigEndian(page.raw(), bytes_.data() + 8);
}

absl::StatusOr<PageIndex> PageKey::PageOf(LayerId layer, const rocksdb::Slice& key) {
  if (key.size() != kBytes || LoadBigEndian(key.data()) != layer.raw()) {
    return absl::DataLossError(
        absl::StrCat("layer ", layer.raw(), " holds a damaged key of ", key.size(), " bytes"));
  }
  return PageIndex(LoadBigEndian(key.data() + 8));
}

RocksMemory RocksMemory::Divide(uint64_t memory_bytes) {
  RocksMemory memory;
  memory.write_buffer_bytes = std::max(memory_bytes / 4, 2 * kMiB);
  memory.block_cache_bytes =
      std::max(memory_bytes - std::min(memory_bytes, memory.write_buffer_bytes), 2 * kMiB);
  return memory;
}

rocksdb::DBOptions MakeDbOptions(const RocksMemory& memory) {
  rocksdb::DBOptions options;
  options.create_if_missing = true;
  options.create_missing_column_families = true;
  options.paranoid_checks = true;
  options.max_background_jobs = std::max(2, static_cast<int>(std::thread::hardware_concurrency()));
  options.max_open_files = MaxOpenFiles();
  options.db_write_buffer_size = memory.write_buffer_bytes;
  options.enable_pipelined_write = true;
  options.bytes_per_sync = kMiB;
  options.avoid_unnecessary_blocking_io = true;
  options.avoid_flush_during_shutdown = true;  // all that counts is in the log

  // What was acknowledged must not be dropped in silence: a log that is damaged in the middle, or
  // is missing, keeps the store from opening. Only a record cut off at the very end, which is what
  // a crash leaves of a write that nobody was told of, is passed over.
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kTolerateCorruptedTailRecords;
  options.track_and_verify_wals_in_manifest = true;
  options.max_total_wal_size = 4 * memory.write_buffer_bytes;

  options.info_log = std::make_shared<OurLog>();
  options.stats_dump_period_sec = 0;
  options.stats_persist_period_sec = 0;
  return options;
}

rocksdb::ColumnFamilyOptions MakePageFamilyOptions(const RocksMemory& memory) {
  rocksdb::BlockBasedTableOptions table;
  // Four pages. With 1 GiB in the page cache a page of a long run costs 1.3 us, of 16 pages in turn
  // 2.9 us and a lone one 10 us; with a block for each page 1.9, 4.1 and 7.8 us, with 16 in a block
  // 1.15, 2.7 and 14.5 us. The price: what is damaged is lost by the block.
  table.block_size = 4 * kPageSize;
  table.format_version = 5;
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
  table.whole_key_filtering = true;
  table.data_block_index_type = rocksdb::BlockBasedTableOptions::kDataBlockBinaryAndHash;
  // There is an entry of the index for each block and a filter of ten bits for each page: 1.7 GB
  // for 1 TiB of pages. Index and filters are therefore cut into partitions that live in the block
  // cache, before data blocks, which the operating system caches as well.
  table.index_type = rocksdb::BlockBasedTableOptions::kTwoLevelIndexSearch;
  table.partition_filters = true;
  table.metadata_block_size = kPageSize;
  table.cache_index_and_filter_blocks = true;
  table.cache_index_and_filter_blocks_with_high_priority = true;
  table.pin_top_level_index_and_filter = true;
  rocksdb::LRUCacheOptions cache;
  cache.capacity = memory.block_cache_bytes;
  cache.high_pri_pool_ratio = 0.9;
  table.block_cache = rocksdb::NewLRUCache(cache);

  rocksdb::ColumnFamilyOptions options;
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  options.compression = rocksdb::kNoCompression;  // pages come encoded
  options.optimize_filters_for_hits = false;      // layers are asked for pages they do not hold
  options.write_buffer_size = std::max(memory.write_buffer_bytes / 2, kMiB);
  options.max_write_buffer_number = 4;
  options.level0_file_num_compaction_trigger = 8;
  options.level0_slowdown_writes_trigger = 40;
  options.level0_stop_writes_trigger = 64;
  options.target_file_size_base = 64 * kMiB;
  options.max_bytes_for_level_base = std::max(8 * memory.write_buffer_bytes, 64 * kMiB);
  options.level_compaction_dynamic_level_bytes = true;
  return options;
}

rocksdb::ColumnFamilyOptions MakeMetaFamilyOptions() {
  rocksdb::ColumnFamilyOptions options;
  options.compression = rocksdb::kNoCompression;
  options.write_buffer_size = kMiB;
  return options;
}

bool IsDiskFull(const rocksdb::Status& status) {
  if (!status.IsIOError()) return false;
  const std::string text = status.ToString();
  return status.IsNoSpace() || absl::StrContains(text, "No space left on device") ||
         absl::StrContains(text, "Disk quota exceeded");
}

absl::Status FromRocks(absl::string_view doing, absl::string_view path,
                       const rocksdb::Status& status) {
  if (status.ok()) return absl::OkStatus();
  const std::string text = status.ToString();
  if (IsDiskFull(status)) {
    return absl::ResourceExhaustedError(
        absl::StrCat(doing, ": the disk of ", path,
                     " is full; free some space there or delete volumes, writes then go on by ",
                     "themselves (", text, ")"));
  }
  if (status.IsCorruption()) {
    return absl::DataLossError(absl::StrCat(doing, ": stored bytes in ", path,
                                            " are damaged; restore them from a copy (", text, ")"));
  }
  return absl::UnavailableError(absl::StrCat(doing, ": ", path, " failed (", text, ")"));
}

}  // namespace faultline
