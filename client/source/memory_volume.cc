// SPDX-License-Identifier: Apache-2.0
#include "client/source/memory_volume.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "client/source/memory_page_source.h"
#include "proto/mutex.h"
#include "proto/page_codec.h"

namespace faultline {
namespace {

// As much as a page server allows for by default.
constexpr PageCount kMaxPagesAtOnce{1024};

bool IsZero(const PageToWrite& page) {
  return page.bytes == nullptr || IsZeroPage(PageBytes(page.bytes, kPageSize));
}

class Volume final : public MemoryVolume, public std::enable_shared_from_this<Volume> {
 public:
  explicit Volume(std::string content)
      : size_(PageCount::CoveringBytes(content.size())), content_(std::move(content)) {
    content_.resize(size_.in_bytes());
  }

  std::shared_ptr<PageSource> OpenSource() override;
  VolumeIo OpenIo() override;

  void SetFull(bool full) override {
    ExclusiveLock lock(mu_);
    full_ = full;
  }
  void Delete() override {
    ExclusiveLock lock(mu_);
    deleted_ = true;
  }
  std::string Bytes(PageRange range) const override {
    SharedLock lock(mu_);
    return content_.substr(range.first.byte_offset(), range.size_bytes());
  }

  absl::StatusOr<std::string> Read(PageRange range) const {
    SharedLock lock(mu_);
    if (absl::Status status = Check(range); !status.ok()) return status;
    return content_.substr(range.first.byte_offset(), range.size_bytes());
  }

  absl::Status Write(uint64_t epoch, std::span<const PageToWrite> pages) {
    ExclusiveLock lock(mu_);
    for (const PageToWrite& page : pages) {
      if (absl::Status status = Check(PageRange::Single(page.page)); !status.ok()) return status;
    }
    if (epoch != epoch_) {
      return absl::FailedPreconditionError(
          absl::StrCat("the writer of epoch ", epoch, " was fenced, the epoch is now ", epoch_));
    }
    if (full_ && !std::all_of(pages.begin(), pages.end(), IsZero)) {
      return absl::ResourceExhaustedError("the volume takes no more pages");
    }
    for (const PageToWrite& page : pages) {
      char* const target = content_.data() + page.page.byte_offset();
      if (page.bytes == nullptr) {
        memset(target, 0, kPageSize);
      } else {
        memcpy(target, page.bytes, kPageSize);
      }
    }
    return absl::OkStatus();
  }

  PageCount size() const { return size_; }

 private:
  absl::Status Check(PageRange range) const ABSL_SHARED_LOCKS_REQUIRED(mu_) {
    if (deleted_) return absl::NotFoundError("the volume was deleted");
    if (IsWithin(range.first.raw(), range.count.raw(), size_)) return absl::OkStatus();
    return absl::OutOfRangeError(absl::StrCat("page ", range.first.raw(),
                                              " is beyond the volume's ", size_.raw(), " pages"));
  }

  const PageCount size_;
  mutable SharedMutex mu_;
  std::string content_ ABSL_GUARDED_BY(mu_);
  uint64_t epoch_ ABSL_GUARDED_BY(mu_) = 0;
  bool full_ ABSL_GUARDED_BY(mu_) = false;
  bool deleted_ ABSL_GUARDED_BY(mu_) = false;
};

class Source final : public PageSource {
 public:
  explicit Source(std::shared_ptr<const Volume> volume) : volume_(std::move(volume)) {}

  void Fetch(PageRange range, FetchLane, absl::Time, FetchDone done) override {
    const absl::StatusOr<std::string> content = volume_->Read(range);
    if (!content.ok()) {
      done(content.status());
      return;
    }
    const std::vector<FetchedRun> runs =
        RunsOf(range, reinterpret_cast<const std::byte*>(content->data()));
    done(std::span<const FetchedRun>(runs));
  }

  PageCount size() const override { return volume_->size(); }
  PageCount max_fetch() const override { return kMaxPagesAtOnce; }

 private:
  const std::shared_ptr<const Volume> volume_;
};

class Sink final : public PageSink {
 public:
  Sink(std::shared_ptr<Volume> volume, uint64_t epoch)
      : volume_(std::move(volume)), epoch_(epoch) {}

  void Write(std::span<const PageToWrite> pages, absl::Time, WriteDone done) override {
    done(volume_->Write(epoch_, pages));
  }

  PageCount size() const override { return volume_->size(); }
  PageCount max_write() const override { return kMaxPagesAtOnce; }

 private:
  const std::shared_ptr<Volume> volume_;
  const uint64_t epoch_;
};

std::shared_ptr<PageSource> Volume::OpenSource() {
  return std::make_shared<Source>(shared_from_this());
}

VolumeIo Volume::OpenIo() {
  uint64_t epoch = 0;
  {
    ExclusiveLock lock(mu_);
    epoch = ++epoch_;
  }
  return {OpenSource(), std::make_shared<Sink>(shared_from_this(), epoch)};
}

}  // namespace

std::shared_ptr<MemoryVolume> MemoryVolume::Create(std::string content) {
  return std::make_shared<Volume>(std::move(content));
}

}  // namespace faultline
