// SPDX-License-Identifier: Apache-2.0
#include "storage/rocksdb_page_store.h"

#include <absl/cleanup/cleanup.h>
#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <fcntl.h>
#include <rocksdb/convenience.h>
#include <rocksdb/db.h>
#include <rocksdb/listener.h>
#include <rocksdb/write_batch.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <functional>
#include <system_error>
#include <thread>

#include "proto/log.h"
#include "proto/mutex.h"
#include "storage/disk_reserve.h"
#include "storage/rocksdb_bulk_load.h"
#include "storage/rocksdb_crc32c.h"
#include "storage/rocksdb_options.h"

namespace faultline {
namespace {

using Change = std::function<rocksdb::Status()>;

// Fewer pages are looked up together, which asks the filters of each file; more are read by an
// iterator, which looks into every file, but costs less for a page that is there.
constexpr uint64_t kIterateFromPages = 32;
// What an iterator reads from a file at once, at most. More gains no more where one file holds the
// run, and wastes reads where each of several holds a few pages of it, as after random writes.
constexpr uint64_t kMaxReadaheadPages = 8;
// Longer ranges are deleted by one range tombstone, which every later read of the layer has to look
// at until a compaction removes it; shorter ones by a tombstone for each page.
constexpr uint64_t kRangeTombstoneFromPages = 4096;
// How often what failed for lack of space is tried again.
constexpr std::chrono::seconds kRetryEvery{1};
// Room that a change must leave on the disk: where RocksDB finds it full in the middle of its log,
// it stops, and has to be resumed.
constexpr uint64_t kChangeHeadroomBytes = uint64_t{4} << 20;
// What bringing the database back needs beside room for its memtables.
constexpr uint64_t kResumeHeadroomBytes = uint64_t{1} << 20;
constexpr uint64_t kReserveBeyondBuffersBytes = uint64_t{8} << 20;
static_assert(kReserveBeyondBuffersBytes >= 2 * kChangeHeadroomBytes,
              "a reserve that is given up must let changes through");

// Of no metadata; see KeepMemtable().
constexpr char kNoMetaKey[] = "\xff";

// About what a WriteBatch of them takes: one that grows copies all that it has, again and again.
size_t BatchBytes(const PageWrites& writes) {
  constexpr size_t kEntryBytes = PageKey::kBytes + 16;
  size_t bytes = 64;
  for (const PageWrites::Put& put : writes.puts) bytes += kEntryBytes + put.encoded.size();
  for (const PageRange range : writes.deletes) {
    bytes += kEntryBytes * (range.count.raw() < kRangeTombstoneFromPages ? range.count.raw() : 2);
  }
  return bytes;
}

// Notes that RocksDB has stopped, and keeps it from waiting for free space by itself: it polls only
// every five seconds and refuses DB::Resume() meanwhile.
class StopListener final : public rocksdb::EventListener {
 public:
  void OnBackgroundError(rocksdb::BackgroundErrorReason, rocksdb::Status* status) override {
    ever_stopped_ = true;
    if (stopped_.exchange(true)) return;
    LogError(absl::StrCat("the store takes no changes for now: ", status->ToString()));
  }
  void OnErrorRecoveryBegin(rocksdb::BackgroundErrorReason, rocksdb::Status,
                            bool* auto_recovery) override {
    *auto_recovery = false;
  }

  bool stopped() const { return stopped_; }
  void clear() { stopped_ = false; }
  bool ever_stopped() const { return ever_stopped_; }

 private:
  std::atomic<bool> stopped_ = false;
  std::atomic<bool> ever_stopped_ = false;
};

class RocksDbPageStore final : public PageStore {
 public:
  static absl::StatusOr<std::unique_ptr<PageStore>> Open(const std::string& dir,
                                                         const PageStoreOptions& options);
  ~RocksDbPageStore() override;

  absl::Status Read(LayerId layer, PageRange range, Visitor visit) override;
  absl::Status Write(LayerId layer, const PageWrites& writes, Durability durability) override;
  absl::Status Sync() override;
  absl::StatusOr<std::unique_ptr<BulkLoad>> StartBulkLoad(LayerId layer) override;
  absl::Status DeleteLayer(LayerId layer) override;
  absl::StatusOr<uint64_t> StoredBytes(LayerId layer) override;
  absl::StatusOr<std::vector<std::pair<std::string, std::string>>> ReadMeta() override;
  absl::Status WriteMeta(std::span<const MetaChange> changes) override;
  StoreStats Stats() override;

 private:
  RocksDbPageStore(std::string dir, const PageStoreOptions& options);

  absl::Status OpenDatabase();
  void StartThreads();

  absl::Status ReadOne(LayerId layer, PageIndex page, Visitor visit);
  absl::Status ReadFew(LayerId layer, PageRange range, Visitor visit);
  absl::Status ReadMany(LayerId layer, PageRange range, Visitor visit);
  absl::Status ReadFailed(LayerId layer, PageIndex page, const rocksdb::Status& status) const;

  // Runs `change`, which writes about `bytes`, if the disk has room for it. Where it fails because
  // RocksDB has stopped, gets that going again if it can be, and runs it once more.
  rocksdb::Status Apply(uint64_t bytes, const Change& change);
  // As Apply, for a small change that frees space or must not fail for want of a little: gives up
  // the reserve if nothing else helps.
  rocksdb::Status ApplyFromReserve(const Change& change);
  bool Resume() ABSL_LOCKS_EXCLUDED(changes_mu_);
  // Sees to it that Resume() finds something in memory. False where the database takes no changes.
  bool KeepMemtable();

  rocksdb::Status SyncLog();
  void SyncLoop();
  void ReclaimLoop();
  // Compacts what is left of a deleted layer. False if that has to be tried again.
  bool Reclaim(LayerId layer);
  // Lets go of the logs that only KeepMemtable()'s entry holds: it is in memory alone, so RocksDB
  // keeps all logs since then.
  void ReleaseLogs() ABSL_LOCKS_EXCLUDED(changes_mu_);

  const std::string dir_;
  const PageStoreOptions options_;
  const RocksMemory memory_;
  const rocksdb::ColumnFamilyOptions page_options_;
  const std::shared_ptr<StopListener> listener_ = std::make_shared<StopListener>();
  rocksdb::DBOptions db_options_;
  std::unique_ptr<rocksdb::DB> db_;
  rocksdb::ColumnFamilyHandle* pages_ = nullptr;  // both destroyed before db_
  rocksdb::ColumnFamilyHandle* meta_ = nullptr;
  std::unique_ptr<DiskReserve> reserve_;

  std::atomic<bool> unsynced_ = false;  // whether the log holds writes that wait for the SyncLoop
  std::atomic<uint64_t> next_load_ = 0;
  std::atomic<uint64_t> changing_bytes_ = 0;  // of all changes under way
  std::atomic<bool> cancel_compaction_ = false;
  SharedMutex changes_mu_;  // shared by changes; by Resume(), one at a time, alone

  Mutex mu_;
  CondVar wake_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<LayerId> to_reclaim_ ABSL_GUARDED_BY(mu_);

  std::thread sync_thread_;
  std::thread reclaim_thread_;
};

RocksDbPageStore::RocksDbPageStore(std::string dir, const PageStoreOptions& options)
    : dir_(std::move(dir)),
      options_(options),
      memory_(RocksMemory::Divide(options.memory_bytes)),
      page_options_(MakePageFamilyOptions(memory_)),
      db_options_(MakeDbOptions(memory_)) {
  db_options_.listeners.push_back(listener_);
}

RocksDbPageStore::~RocksDbPageStore() {
  {
    MutexLock lock(mu_);
    stopping_ = true;
    cancel_compaction_ = true;
    wake_.SignalAll();
  }
  if (sync_thread_.joinable()) sync_thread_.join();
  if (reclaim_thread_.joinable()) reclaim_thread_.join();
  if (db_ == nullptr) return;
  if (const rocksdb::Status status = db_->SyncWAL(); !status.ok()) {
    LogError(absl::StrCat("closing ", dir_, ": ", status.ToString()));
  }
  for (rocksdb::ColumnFamilyHandle* family : {pages_, meta_}) {
    db_->DestroyColumnFamilyHandle(family).PermitUncheckedError();  // fails only for null
  }
  if (const rocksdb::Status status = db_->Close(); !status.ok()) {
    LogError(absl::StrCat("closing ", dir_, ": ", status.ToString()));
  }
}

absl::Status RocksDbPageStore::OpenDatabase() {
  const std::vector<rocksdb::ColumnFamilyDescriptor> families = {
      {rocksdb::kDefaultColumnFamilyName, page_options_}, {"meta", MakeMetaFamilyOptions()}};
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  rocksdb::DB* db = nullptr;
  const rocksdb::Status status =
      rocksdb::DB::Open(db_options_, dir_ + "/db", families, &handles, &db);
  if (status.IsIOError() && absl::StrContains(status.ToString(), "LOCK") && !IsDiskFull(status)) {
    return absl::FailedPreconditionError(
        absl::StrCat("the store in ", dir_,
                     " is in use by another process; stop that one, or choose another directory (",
                     status.ToString(), ")"));
  }
  if (!status.ok()) return FromRocks("opening the store", dir_, status);
  db_.reset(db);
  pages_ = handles[0];
  meta_ = handles[1];
  KeepMemtable();
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<PageStore>> RocksDbPageStore::Open(const std::string& dir,
                                                                  const PageStoreOptions& options) {
  std::unique_ptr<RocksDbPageStore> store(new RocksDbPageStore(dir, options));
  absl::Status status = store->OpenDatabase();
  // It failed past taking the lock, so a reserve that is there was left by a crash, for this.
  if (absl::IsResourceExhausted(status) && unlink((dir + "/reserve").c_str()) == 0) {
    status = store->OpenDatabase();
  }
  if (!status.ok()) return status;
  // From here on the database's lock is ours, and so is everything beside it.
  std::error_code error;
  std::filesystem::remove_all(dir + "/staging", error);
  if (error) {
    return absl::UnavailableError(
        absl::StrCat("cannot delete ", dir, "/staging: ", error.message()));
  }
  store->reserve_ = std::make_unique<DiskReserve>(
      dir + "/reserve", store->memory_.write_buffer_bytes + kReserveBeyondBuffersBytes);
  store->StartThreads();
  LogDebug(absl::StrCat("the store in ", dir, ": checksums of the log by ", LogChecksums()));
  return store;
}

void RocksDbPageStore::StartThreads() {
  sync_thread_ = std::thread([this] { SyncLoop(); });
  pthread_setname_np(sync_thread_.native_handle(), "store-sync");
  reclaim_thread_ = std::thread([this] { ReclaimLoop(); });
  pthread_setname_np(reclaim_thread_.native_handle(), "store-reclaim");
}

absl::Status RocksDbPageStore::ReadFailed(LayerId layer, PageIndex page,
                                          const rocksdb::Status& status) const {
  return FromRocks(absl::StrCat("reading page ", page.raw(), " of layer ", layer.raw()), dir_,
                   status);
}

absl::Status RocksDbPageStore::Read(LayerId layer, PageRange range, Visitor visit) {
  if (range.empty()) return absl::OkStatus();
  if (range.count == PageCount(1)) return ReadOne(layer, range.first, visit);
  if (range.count.raw() < kIterateFromPages) return ReadFew(layer, range, visit);
  return ReadMany(layer, range, visit);
}

absl::Status RocksDbPageStore::ReadOne(LayerId layer, PageIndex page, Visitor visit) {
  const PageKey key(layer, page);
  rocksdb::PinnableSlice value;
  const rocksdb::Status status = db_->Get(rocksdb::ReadOptions(), pages_, key.slice(), &value);
  if (status.IsNotFound()) return absl::OkStatus();
  if (!status.ok()) return ReadFailed(layer, page, status);
  return visit(page, {value.data(), value.size()});
}

absl::Status RocksDbPageStore::ReadFew(LayerId layer, PageRange range, Visitor visit) {
  const size_t count = range.count.raw();
  std::array<PageKey, kIterateFromPages> keys;
  std::array<rocksdb::Slice, kIterateFromPages> slices;
  std::array<rocksdb::PinnableSlice, kIterateFromPages> values;
  std::array<rocksdb::Status, kIterateFromPages> statuses;
  for (size_t i = 0; i < count; ++i) {
    keys[i] = PageKey(layer, range.first + PageCount(i));
    slices[i] = keys[i].slice();
  }
  db_->MultiGet(rocksdb::ReadOptions(), pages_, count, slices.data(), values.data(),
                statuses.data(), /*sorted_input=*/true);
  for (size_t i = 0; i < count; ++i) {
    const PageIndex page = range.first + PageCount(i);
    if (statuses[i].IsNotFound()) continue;
    if (!statuses[i].ok()) return ReadFailed(layer, page, statuses[i]);
    if (absl::Status status = visit(page, {values[i].data(), values[i].size()}); !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

absl::Status RocksDbPageStore::ReadMany(LayerId layer, PageRange range, Visitor visit) {
  const PageKey first(layer, range.first);
  const PageKey end(layer, range.end());
  const rocksdb::Slice upper = end.slice();
  rocksdb::ReadOptions options;
  options.iterate_upper_bound = &upper;
  options.fill_cache = false;  // a long run would push the index out
  // One read of the file instead of one for each block. Blocks have a few bytes more than their
  // page.
  options.readahead_size =
      std::min(range.count.raw(), kMaxReadaheadPages) * (kPageSize + kPageSize / 32);
  const std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator(options, pages_));
  PageIndex next = range.first;
  for (it->Seek(first.slice()); it->Valid(); it->Next()) {
    const absl::StatusOr<PageIndex> page = PageKey::PageOf(layer, it->key());
    if (!page.ok()) return page.status();
    next = *page + PageCount(1);
    const rocksdb::Slice value = it->value();
    if (absl::Status status = visit(*page, {value.data(), value.size()}); !status.ok()) {
      return status;
    }
  }
  return ReadFailed(layer, next, it->status());
}

// Resuming replaces a log that could not be written only where it has a memtable to write out
// (RocksDB 7.8, DBImpl::ResumeImpl(); later versions always do). With the old log the next change
// ends the process, by an assertion that Debian's build has. So one memtable is never empty: that
// of the metadata holds a tombstone of no key, which passes the log by and leaves nothing behind.
bool RocksDbPageStore::KeepMemtable() {
  uint64_t entries = 0;
  db_->GetIntProperty(meta_, rocksdb::DB::Properties::kNumEntriesActiveMemTable, &entries);
  if (entries > 0) return true;
  rocksdb::WriteOptions options;
  options.disableWAL = true;
  options.no_slowdown = true;
  return db_->Delete(options, meta_, kNoMetaKey).ok();
}

bool RocksDbPageStore::Resume() {
  ExclusiveLock lock(changes_mu_);
  // Resuming writes the memtables out, so it is tried only where they fit.
  uint64_t memtables = 0;
  db_->GetAggregatedIntProperty(rocksdb::DB::Properties::kCurSizeAllMemTables, &memtables);
  if (FreeBytes(dir_) < memtables + kResumeHeadroomBytes) return false;
  const rocksdb::Status status = db_->Resume();
  if (!status.ok() || !KeepMemtable()) return false;
  if (listener_->stopped()) LogInfo(absl::StrCat("the store in ", dir_, " takes changes again"));
  listener_->clear();
  return true;
}

rocksdb::Status RocksDbPageStore::Apply(uint64_t bytes, const Change& change) {
  const uint64_t changing = changing_bytes_.fetch_add(bytes) + bytes;
  const absl::Cleanup done = [this, bytes] { changing_bytes_.fetch_sub(bytes); };
  if (FreeBytes(dir_) < changing + kChangeHeadroomBytes) {
    return rocksdb::Status::NoSpace("what is left is too little for a change");
  }
  const auto apply = [this, &change] {
    SharedLock lock(changes_mu_);
    return change();
  };
  rocksdb::Status status = apply();
  if (status.IsIOError() && Resume()) status = apply();
  return status;
}

rocksdb::Status RocksDbPageStore::ApplyFromReserve(const Change& change) {
  rocksdb::Status status = Apply(0, change);
  if (IsDiskFull(status) && reserve_->GiveUp()) status = Apply(0, change);
  return status;
}

absl::Status RocksDbPageStore::Write(LayerId layer, const PageWrites& writes,
                                     Durability durability) {
  const std::string doing = absl::StrCat("writing to layer ", layer.raw());
  if (reserve_->given_up()) {
    reserve_->Restore();
    if (reserve_->given_up()) {
      return FromRocks(doing, dir_, rocksdb::Status::NoSpace("what is left serves deleting"));
    }
  }
  rocksdb::WriteBatch batch(BatchBytes(writes));
  for (const PageRange range : writes.deletes) {
    rocksdb::Status status;
    if (range.count.raw() >= kRangeTombstoneFromPages) {
      status = batch.DeleteRange(pages_, PageKey(layer, range.first).slice(),
                                 PageKey(layer, range.end()).slice());
    } else {
      for (PageIndex page = range.first; page < range.end() && status.ok(); ++page) {
        status = batch.Delete(pages_, PageKey(layer, page).slice());
      }
    }
    if (!status.ok()) return FromRocks(doing, dir_, status);
  }
  for (const PageWrites::Put& put : writes.puts) {
    const rocksdb::Status status = batch.Put(pages_, PageKey(layer, put.page).slice(),
                                             {put.encoded.data(), put.encoded.size()});
    if (!status.ok()) return FromRocks(doing, dir_, status);
  }
  rocksdb::WriteOptions options;
  options.sync = durability == Durability::kSync;
  const rocksdb::Status status =
      Apply(batch.GetDataSize(), [&] { return db_->Write(options, &batch); });
  if (status.ok() && durability == Durability::kInterval) unsynced_ = true;
  return FromRocks(doing, dir_, status);
}

absl::Status RocksDbPageStore::Sync() { return FromRocks("syncing", dir_, SyncLog()); }

rocksdb::Status RocksDbPageStore::SyncLog() {
  // Of a log that could not be written it would end the process, as in KeepMemtable(). What is in
  // it is written out when the store resumes.
  if (listener_->stopped() && !Resume()) {
    return rocksdb::Status::NoSpace("the log could not be written");
  }
  return db_->SyncWAL();
}

absl::StatusOr<std::unique_ptr<BulkLoad>> RocksDbPageStore::StartBulkLoad(LayerId layer) {
  RocksBulkLoadTarget target;
  target.db = db_.get();
  target.family = pages_;
  target.options = rocksdb::Options(db_options_, page_options_);
  target.layer = layer;
  target.staging = absl::StrCat(dir_, "/staging/", next_load_++);
  target.path = dir_;
  target.change = [this](const Change& change) { return Apply(0, change); };
  target.may_ingest = [this] { return !listener_->ever_stopped(); };
  return StartRocksBulkLoad(std::move(target));
}

absl::Status RocksDbPageStore::DeleteLayer(LayerId layer) {
  const std::string doing = absl::StrCat("deleting layer ", layer.raw());
  const PageKey begin(layer, PageIndex(0));
  const PageKey end(LayerId(layer.raw() + 1), PageIndex(0));
  const rocksdb::Slice first = begin.slice();
  const rocksdb::Slice last = end.slice();
  // Frees whole files at once; the range tombstone hides the rest until it is compacted away.
  rocksdb::Status status = ApplyFromReserve([&] {
    return rocksdb::DeleteFilesInRange(db_.get(), pages_, &first, &last, /*include_end=*/false);
  });
  if (!status.ok()) return FromRocks(doing, dir_, status);
  rocksdb::WriteOptions options;
  options.sync = true;
  status = ApplyFromReserve([&] { return db_->DeleteRange(options, pages_, first, last); });
  if (!status.ok()) return FromRocks(doing, dir_, status);
  MutexLock lock(mu_);
  to_reclaim_.push_back(layer);
  wake_.SignalAll();
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> RocksDbPageStore::StoredBytes(LayerId layer) {
  const PageKey begin(layer, PageIndex(0));
  const PageKey end(LayerId(layer.raw() + 1), PageIndex(0));
  const rocksdb::Slice last = end.slice();
  const rocksdb::Range range(begin.slice(), last);
  rocksdb::SizeApproximationOptions approximation;
  approximation.include_memtables = true;
  uint64_t bytes = 0;
  rocksdb::Status status = db_->GetApproximateSizes(approximation, pages_, &range, 1, &bytes);
  if (!status.ok()) return FromRocks("estimating a layer's size", dir_, status);
  rocksdb::ReadOptions options;
  options.iterate_upper_bound = &last;
  const std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator(options, pages_));
  it->Seek(begin.slice());
  if (!it->status().ok()) return ReadFailed(layer, PageIndex(0), it->status());
  if (!it->Valid()) return 0;
  return std::max<uint64_t>(bytes, it->value().size());
}

absl::StatusOr<std::vector<std::pair<std::string, std::string>>> RocksDbPageStore::ReadMeta() {
  std::vector<std::pair<std::string, std::string>> all;
  const std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator(rocksdb::ReadOptions(), meta_));
  for (it->SeekToFirst(); it->Valid(); it->Next()) {
    all.emplace_back(it->key().ToString(), it->value().ToString());
  }
  if (!it->status().ok()) return FromRocks("reading the metadata", dir_, it->status());
  return all;
}

absl::Status RocksDbPageStore::WriteMeta(std::span<const MetaChange> changes) {
  rocksdb::WriteBatch batch;
  for (const MetaChange& change : changes) {
    const rocksdb::Status status = change.value.has_value()
                                       ? batch.Put(meta_, change.key, *change.value)
                                       : batch.Delete(meta_, change.key);
    if (!status.ok()) return FromRocks("writing the metadata", dir_, status);
  }
  rocksdb::WriteOptions options;
  options.sync = true;
  return FromRocks("writing the metadata", dir_,
                   ApplyFromReserve([&] { return db_->Write(options, &batch); }));
}

StoreStats RocksDbPageStore::Stats() {
  uint64_t tables = 0;
  uint64_t memtables = 0;
  db_->GetAggregatedIntProperty(rocksdb::DB::Properties::kLiveSstFilesSize, &tables);
  db_->GetAggregatedIntProperty(rocksdb::DB::Properties::kCurSizeAllMemTables, &memtables);
  return {.stored_bytes = tables + memtables,
          .free_bytes = FreeBytes(dir_),
          .capacity_bytes = CapacityBytes(dir_)};
}

void RocksDbPageStore::SyncLoop() {
  bool failing = false;
  auto next = std::chrono::steady_clock::now();
  MutexLock lock(mu_);
  while (!stopping_) {
    const auto now = std::chrono::steady_clock::now();
    if (now < next) {
      wake_.WaitUntil(mu_, next);
      continue;
    }
    next = now + absl::ToChronoNanoseconds(options_.sync_interval);
    if (!unsynced_.exchange(false)) continue;
    mu_.Unlock();
    const rocksdb::Status status = SyncLog();
    if (!status.ok()) {
      unsynced_ = true;
      if (!failing) LogError(absl::StrCat("syncing ", dir_, ": ", status.ToString()));
    }
    failing = !status.ok();
    mu_.Lock();
  }
}

void RocksDbPageStore::ReclaimLoop() {
  MutexLock lock(mu_);
  std::vector<LayerId> left;  // to be tried again later
  while (true) {
    if (to_reclaim_.empty()) {
      wake_.WaitUntil(mu_, std::chrono::steady_clock::now() + kRetryEvery);
    }
    if (stopping_) return;
    std::vector<LayerId> layers = std::exchange(to_reclaim_, {});
    mu_.Unlock();
    if (listener_->stopped()) Resume();
    KeepMemtable();
    reserve_->Restore();
    layers.insert(layers.end(), left.begin(), left.end());
    left.clear();
    for (const LayerId layer : layers) {
      if (!Reclaim(layer)) left.push_back(layer);
    }
    if (left.size() < layers.size()) ReleaseLogs();
    mu_.Lock();
  }
}

bool RocksDbPageStore::Reclaim(LayerId layer) {
  if (cancel_compaction_) return true;
  const PageKey begin(layer, PageIndex(0));
  const PageKey end(LayerId(layer.raw() + 1), PageIndex(0));
  const rocksdb::Slice first = begin.slice();
  const rocksdb::Slice last = end.slice();
  rocksdb::CompactRangeOptions options;
  options.exclusive_manual_compaction = false;
  options.bottommost_level_compaction = rocksdb::BottommostLevelCompaction::kForceOptimized;
  options.canceled = &cancel_compaction_;
  return db_->CompactRange(options, pages_, &first, &last).ok();
}

void RocksDbPageStore::ReleaseLogs() {
  if (cancel_compaction_) return;
  ExclusiveLock lock(changes_mu_);  // no Resume() between the two
  const rocksdb::Status status = db_->Flush(rocksdb::FlushOptions(), meta_);
  if (!status.ok()) LogError(absl::StrCat("flushing ", dir_, ": ", status.ToString()));
  KeepMemtable();
}

// Makes the entries of the directory `dir` durable.
absl::Status SyncDirectory(const std::string& dir) {
  const int fd = open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const int error = fd < 0 || fsync(fd) != 0 ? errno : 0;
  if (fd >= 0) close(fd);
  if (error == 0) return absl::OkStatus();
  return absl::ErrnoToStatus(error, absl::StrCat("cannot sync directory ", dir));
}

// Makes `dir` unless it is there.
absl::Status MakeDirectory(const std::string& dir) {
  if (mkdir(dir.c_str(), 0700) == 0) return SyncDirectory(dir + "/..");
  if (errno != EEXIST) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot make the store's directory ", dir));
  }
  if (!std::filesystem::is_directory(dir)) {
    return absl::FailedPreconditionError(
        absl::StrCat("the store ", dir, " is not a directory; choose another path"));
  }
  if (access(dir.c_str(), R_OK | W_OK | X_OK) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot use the store's directory ", dir));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<PageStore>> OpenRocksDbPageStore(const std::string& dir,
                                                                const PageStoreOptions& options) {
  if (dir.empty()) {
    return absl::InvalidArgumentError("the store rocksdb: needs a directory, as in rocksdb:DIR");
  }
  if (absl::Status status = MakeDirectory(dir); !status.ok()) return status;
  auto store = RocksDbPageStore::Open(dir, options);
  if (!store.ok()) return store.status();
  if (absl::Status status = SyncDirectory(dir); !status.ok()) return status;
  return store;
}

}  // namespace faultline
