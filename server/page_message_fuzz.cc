// SPDX-License-Identifier: Apache-2.0
//
// What a client may send on its Write and Fetch streams, as a page server takes it: requests of any
// bytes, one after the other, to a volume that a plain map stands beside. Nothing is read outside
// of a request; one that is refused changes nothing; one that is applied writes its pages, and
// nothing else; and what is fetched is what was written. And working sets, of either end.
//
// An input is requests, each {what is done, 1 byte} {size, 2 bytes} {message}.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>

#include "proto/page_batch.h"
#include "proto/page_codec.h"
#include "proto/working_set_message.h"
#include "server/write_batch.h"
#include "storage/memory_page_store.h"
#include "storage/volume_catalog.h"

namespace faultline {
namespace {

constexpr PageCount kPages{40};
constexpr PageCount kMaxPagesPerRequest{32};
constexpr PageCount kPagesOfSets{5000};
constexpr size_t kMaxRequests = 16;
constexpr size_t kMaxSnapshots = 3;

void Check(bool holds) {
  if (!holds) abort();
}

std::string Decoded(PageIndex page, absl::string_view encoded) {
  std::string bytes(kPageSize, '\0');
  const absl::StatusOr<PageBytes> decoded = DecodePage(
      page, encoded, MutablePageBytes(reinterpret_cast<std::byte*>(bytes.data()), kPageSize));
  Check(decoded.ok());
  return {reinterpret_cast<const char*>(decoded->data()), kPageSize};
}

class Volumes {
 public:
  Volumes() {
    catalog_ = *VolumeCatalog::Open(NewMemoryPageStore());
    Check(catalog_->Create("volume", kPages.in_bytes(), Durability::kNone).ok());
    volume_ = *catalog_->Find("volume");
    epoch_ = catalog_->TakeEpoch("volume")->epoch;
  }

  void Write(const rpc::WriteRequest& request) {
    const absl::StatusOr<PageCount> count =
        CountPages(request.batch().runs(), PageCount(kMaxVolumePages), kMaxPagesPerRequest);
    if (!count.ok()) return;
    Check(*count <= kMaxPagesPerRequest);
    VolumeWrites writes;
    const absl::Status collected = CollectWrites(request.batch(), &writes);
    if (!collected.ok()) {
      Check(absl::IsDataLoss(collected) || absl::IsInvalidArgument(collected));
      return;
    }
    PageCount pages(writes.pages.size());
    for (const PageRange trim : writes.trims) pages += trim.count;
    Check(pages == *count);
    // 0 is the writer's own, so that the right one is often met.
    const uint64_t epoch = request.epoch() == 0 ? epoch_ : request.epoch();
    const absl::Status written = volume_->Write({epoch, request.generation()}, writes);
    if (!written.ok()) {
      Check(absl::IsFailedPrecondition(written) || absl::IsOutOfRange(written) ||
            absl::IsAborted(written));
      return;
    }
    Check(epoch == epoch_);
    Apply(request.batch());
  }

  void Fetch(const rpc::FetchRequest& request) const {
    const absl::StatusOr<PageCount> count =
        CountPages(request.runs(), PageCount(kMaxVolumePages), kMaxPagesPerRequest);
    if (!count.ok()) return;
    for (const rpc::PageRun& run : request.runs()) {
      CheckPages({PageIndex(run.first()), PageCount(run.count())});
    }
  }

  // What was written stays, in a layer below.
  void Snapshot() {
    if (snapshots_ == kMaxSnapshots) return;
    Check(catalog_->Snapshot("volume", "snapshot" + std::to_string(++snapshots_)).ok());
  }

  void CheckAll() const { CheckPages({PageIndex(0), kPages}); }

 private:
  // In the order of the batch, which names no page twice.
  void Apply(const rpc::PageBatch& batch) {
    absl::string_view rest = batch.pages();
    for (const rpc::PageRun& run : batch.runs()) {
      for (uint64_t page = run.first(); page < run.first() + run.count(); ++page) {
        expected_.erase(page);
        if (run.kind() == rpc::PageRun::ZERO) continue;
        std::string bytes = Decoded(PageIndex(page), *TakeEncodedPage(&rest));
        if (bytes.find_first_not_of('\0') != bytes.npos) expected_[page] = std::move(bytes);
      }
    }
    Check(rest.empty());
  }

  void CheckPages(PageRange pages) const {
    PageIndex next = pages.first;
    const absl::Status status = volume_->Read(
        pages,
        [&](PageIndex page, absl::string_view encoded) {
          Check(page == next);
          ++next;
          const auto found = expected_.find(page.raw());
          Check(found != expected_.end() && found->second == Decoded(page, encoded));
          return absl::OkStatus();
        },
        [&](PageRange zero) {
          Check(zero.first == next && !zero.empty());
          next = zero.end();
          const auto found = expected_.lower_bound(zero.first.raw());
          Check(found == expected_.end() || found->first >= zero.end().raw());
          return absl::OkStatus();
        });
    if (pages.end().raw() > kPages.raw()) {
      Check(absl::IsOutOfRange(status));
    } else {
      Check(status.ok() && next == pages.end());
    }
  }

  std::unique_ptr<VolumeCatalog> catalog_;
  std::shared_ptr<Volume> volume_;
  uint64_t epoch_ = 0;
  size_t snapshots_ = 0;
  std::map<uint64_t, std::string> expected_;  // the pages that are not zero
};

// Whoever knows no checksums cannot make a page: the payload's bytes become the content of the
// pages that the runs name.
void EncodePages(rpc::PageBatch* batch) {
  if (!CountPages(batch->runs(), PageCount(kMaxVolumePages), kMaxPagesPerRequest).ok()) return;
  const std::string seed = batch->pages();
  std::string encoded;
  size_t at = 0;
  for (const rpc::PageRun& run : batch->runs()) {
    if (run.kind() == rpc::PageRun::ZERO) continue;
    for (uint64_t page = run.first(); page < run.first() + run.count(); ++page) {
      std::string bytes(kPageSize, '\0');
      // Few bytes, so that some pages are of zeros and others compress.
      for (size_t i = 0; i < 8 && !seed.empty(); ++i) bytes[i * 512] = seed[at++ % seed.size()];
      const auto codec = static_cast<Codec>(1 + static_cast<unsigned char>(bytes[512]) % 3);
      EncodePage(PageIndex(page),
                 PageBytes(reinterpret_cast<const std::byte*>(bytes.data()), kPageSize), codec,
                 &encoded);
    }
  }
  batch->set_pages(std::move(encoded));
}

void ReadWorkingSet(const rpc::WorkingSet& message) {
  const absl::StatusOr<WorkingSet> set = DecodeWorkingSet(kPagesOfSets, message);
  if (!set.ok()) return;
  rpc::WorkingSet again;
  Check(EncodeWorkingSet(*set, &again).ok());
  Check(std::equal(again.runs().begin(), again.runs().end(), message.runs().begin(),
                   message.runs().end()));
  Check(std::equal(again.first().begin(), again.first().end(), message.first().begin(),
                   message.first().end()));
}

}  // namespace
}  // namespace faultline

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace faultline;
  Volumes volumes;
  for (size_t n = 0; n < kMaxRequests && size >= 3; ++n) {
    const uint8_t what = data[0];
    const size_t bytes = std::min<size_t>(data[1] | data[2] << 8, size - 3);
    const auto length = static_cast<int>(bytes);
    rpc::WriteRequest write;
    rpc::FetchRequest fetch;
    rpc::WorkingSet set;
    switch (what % 5) {
      case 0:
        if (write.ParseFromArray(data + 3, length)) volumes.Write(write);
        break;
      case 1:
        if (!write.ParseFromArray(data + 3, length)) break;
        EncodePages(write.mutable_batch());
        volumes.Write(write);
        break;
      case 2:
        if (fetch.ParseFromArray(data + 3, length)) volumes.Fetch(fetch);
        break;
      case 3:
        if (set.ParseFromArray(data + 3, length)) ReadWorkingSet(set);
        break;
      default:
        volumes.Snapshot();
    }
    data += 3 + bytes;
    size -= 3 + bytes;
  }
  volumes.CheckAll();
  return 0;
}
