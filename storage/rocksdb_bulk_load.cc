// SPDX-License-Identifier: Apache-2.0
#include "storage/rocksdb_bulk_load.h"

#include <absl/strings/str_cat.h>
#include <rocksdb/sst_file_reader.h>
#include <rocksdb/sst_file_writer.h>
#include <rocksdb/write_batch.h>

#include <filesystem>
#include <future>
#include <system_error>
#include <utility>
#include <vector>

#include "proto/log.h"
#include "storage/rocksdb_options.h"

namespace faultline {
namespace {

constexpr uint64_t kFileBytes = uint64_t{256} << 20;
constexpr size_t kCopyBatchBytes = size_t{1} << 20;

class RocksBulkLoad final : public BulkLoad {
 public:
  explicit RocksBulkLoad(RocksBulkLoadTarget target) : target_(std::move(target)) {}
  ~RocksBulkLoad() override;

  absl::Status Put(PageIndex page, absl::string_view encoded) override;
  absl::Status Commit() override;

 private:
  rocksdb::Status OpenFile();
  // Starts making the current file durable, once the one before it is.
  rocksdb::Status FinishFile();
  rocksdb::Status AwaitFinished();
  rocksdb::Status Ingest();
  rocksdb::Status Copy();
  absl::Status Failed(const rocksdb::Status& status) const {
    return FromRocks(absl::StrCat("bulk load of layer ", target_.layer.raw()), target_.path,
                     status);
  }

  const RocksBulkLoadTarget target_;
  std::unique_ptr<rocksdb::SstFileWriter> writer_;  // of the current file, if there is one
  std::vector<std::string> files_;
  // The one file that is being made durable while the next one is written.
  std::future<rocksdb::Status> finishing_;
};

RocksBulkLoad::~RocksBulkLoad() {
  AwaitFinished().PermitUncheckedError();  // the files go away, whatever it says
  writer_.reset();
  std::error_code error;
  std::filesystem::remove_all(target_.staging, error);
  if (error) {
    LogWarning(absl::StrCat("cannot delete ", target_.staging, ": ", error.message(),
                            "; it is deleted when the store is opened again"));
  }
}

rocksdb::Status RocksBulkLoad::OpenFile() {
  files_.push_back(absl::StrCat(target_.staging, "/", files_.size(), ".sst"));
  writer_ = std::make_unique<rocksdb::SstFileWriter>(rocksdb::EnvOptions(target_.options),
                                                     target_.options, target_.family,
                                                     /*invalidate_page_cache=*/false);
  return writer_->Open(files_.back());
}

rocksdb::Status RocksBulkLoad::AwaitFinished() {
  return finishing_.valid() ? finishing_.get() : rocksdb::Status::OK();
}

rocksdb::Status RocksBulkLoad::FinishFile() {
  rocksdb::Status status = AwaitFinished();
  if (!status.ok()) return status;
  finishing_ = std::async(std::launch::async, [writer = std::move(writer_)] {
    return writer->Finish();  // syncs the file
  });
  return rocksdb::Status::OK();
}

absl::Status RocksBulkLoad::Put(PageIndex page, absl::string_view encoded) {
  if (writer_ == nullptr) {
    if (const rocksdb::Status status = OpenFile(); !status.ok()) return Failed(status);
  }
  const PageKey key(target_.layer, page);
  rocksdb::Status status = writer_->Put(key.slice(), {encoded.data(), encoded.size()});
  if (status.ok() && writer_->FileSize() >= kFileBytes) status = FinishFile();
  return Failed(status);
}

absl::Status RocksBulkLoad::Commit() {
  rocksdb::Status status;
  if (writer_ != nullptr) status = FinishFile();
  if (status.ok()) status = AwaitFinished();
  if (!status.ok() || files_.empty()) return Failed(status);
  return Failed(target_.change([&] { return target_.may_ingest() ? Ingest() : Copy(); }));
}

rocksdb::Status RocksBulkLoad::Ingest() {
  rocksdb::IngestExternalFileOptions options;
  options.move_files = true;
  options.write_global_seqno = false;
  return target_.db->IngestExternalFile(target_.family, files_, options);
}

rocksdb::Status RocksBulkLoad::Copy() {
  LogWarning(absl::StrCat("the store in ", target_.path,
                          " had stopped since it was opened: bulk loads take the slower way "
                          "through its log until the server is started again"));
  for (const std::string& file : files_) {
    rocksdb::SstFileReader reader(target_.options);
    rocksdb::Status status = reader.Open(file);
    if (!status.ok()) return status;
    const std::unique_ptr<rocksdb::Iterator> it(reader.NewIterator(rocksdb::ReadOptions()));
    rocksdb::WriteBatch batch;
    for (it->SeekToFirst(); status.ok() && it->Valid(); it->Next()) {
      status = batch.Put(target_.family, it->key(), it->value());
      if (status.ok() && batch.GetDataSize() >= kCopyBatchBytes) {
        status = target_.db->Write(rocksdb::WriteOptions(), &batch);
        batch.Clear();
      }
    }
    if (status.ok()) status = it->status();
    if (status.ok()) status = target_.db->Write(rocksdb::WriteOptions(), &batch);
    if (!status.ok()) return status;
  }
  return target_.db->SyncWAL();
}

}  // namespace

absl::StatusOr<std::unique_ptr<BulkLoad>> StartRocksBulkLoad(RocksBulkLoadTarget target) {
  std::error_code error;
  std::filesystem::create_directories(target.staging, error);
  if (error == std::errc::no_space_on_device) {
    return absl::ResourceExhaustedError(absl::StrCat("bulk load of layer ", target.layer.raw(),
                                                     ": the disk of ", target.path, " is full"));
  }
  if (error) {
    return absl::UnavailableError(
        absl::StrCat("cannot make directory ", target.staging, ": ", error.message()));
  }
  return std::make_unique<RocksBulkLoad>(std::move(target));
}

}  // namespace faultline
