// SPDX-License-Identifier: Apache-2.0
#include "storage/rados_layer.h"

#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <absl/strings/strip.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <deque>
#include <set>
#include <utility>

namespace faultline {
namespace {

static_assert(std::endian::native == std::endian::little, "blocks are stored as they are");

constexpr uint64_t kBlocksAtATime = 1024;  // of 512 bytes
constexpr size_t kSampledExtents = 16;

constexpr absl::string_view kHeldPrefix = "e.";
constexpr absl::string_view kLoadingPrefix = "loading.";

std::string BlockKey(ExtentUse use, uint64_t block) {
  return absl::StrFormat("%s%08x", use == ExtentUse::kHeld ? kHeldPrefix : kLoadingPrefix, block);
}

uint64_t NextNumber() {
  static std::atomic<uint64_t> last = 0;
  return ++last;
}

}  // namespace

std::string LayerObject(LayerId layer) { return absl::StrFormat("l.%x", layer.raw()); }

bool ExtentSet::Has(ExtentIndex extent) const {
  const auto block = blocks_.find(extent / kBlockExtents);
  if (block == blocks_.end()) return false;
  const uint64_t bit = extent % kBlockExtents;
  return (block->second[bit / 64] >> (bit % 64) & 1) != 0;
}

void ExtentSet::Add(ExtentIndex extent) {
  uint64_t& word = blocks_[extent / kBlockExtents][extent % kBlockExtents / 64];
  const uint64_t bit = uint64_t{1} << (extent % 64);
  count_ += (word & bit) == 0;
  word |= bit;
}

void ExtentSet::Remove(ExtentIndex extent) {
  const auto block = blocks_.find(extent / kBlockExtents);
  if (block == blocks_.end()) return;
  uint64_t& word = block->second[extent % kBlockExtents / 64];
  const uint64_t bit = uint64_t{1} << (extent % 64);
  count_ -= (word & bit) != 0;
  word &= ~bit;
  const Block& words = block->second;
  if (std::all_of(words.begin(), words.end(), [](uint64_t w) { return w == 0; })) {
    blocks_.erase(block);
  }
}

void ExtentSet::Add(const ExtentSet& other) {
  for (const ExtentIndex extent : other.All()) Add(extent);
}

std::vector<ExtentIndex> ExtentSet::Find(ExtentIndex first, ExtentIndex last, size_t most) const {
  std::vector<ExtentIndex> found;
  for (auto block = blocks_.lower_bound(first / kBlockExtents); block != blocks_.end(); ++block) {
    for (size_t w = 0; w < block->second.size(); ++w) {
      for (uint64_t word = block->second[w]; word != 0; word &= word - 1) {
        const ExtentIndex extent =
            block->first * kBlockExtents + w * 64 + static_cast<uint64_t>(std::countr_zero(word));
        if (extent < first) continue;
        if (extent > last || found.size() == most) return found;
        found.push_back(extent);
      }
    }
  }
  return found;
}

std::string ExtentSet::Encode(uint64_t block) const {
  const auto found = blocks_.find(block);
  if (found == blocks_.end()) return {};
  return std::string(reinterpret_cast<const char*>(found->second.data()), sizeof(Block));
}

bool ExtentSet::Decode(uint64_t block, absl::string_view stored) {
  if (stored.size() != sizeof(Block)) return false;
  Block words;
  memcpy(words.data(), stored.data(), sizeof words);
  for (const uint64_t word : words) count_ += static_cast<uint64_t>(std::popcount(word));
  return blocks_.emplace(block, words).second;
}

std::vector<uint64_t> ExtentSet::Blocks() const {
  std::vector<uint64_t> blocks;
  for (const auto& [block, words] : blocks_) blocks.push_back(block);
  return blocks;
}

absl::StatusOr<StoredLayer> ReadStoredLayer(RadosClient* client, LayerId layer) {
  StoredLayer stored;
  const std::string object = LayerObject(layer);
  std::string after;
  for (bool more = true; more;) {
    std::map<std::string, librados::bufferlist> values;
    const int result = client->io().omap_get_vals2(object, after, kBlocksAtATime, &values, &more);
    if (result == -ENOENT) return stored;
    if (result < 0) return client->Failed(absl::StrCat("reading ", object), result);
    for (auto& [key, value] : values) {
      absl::string_view rest = key;
      const bool loading = absl::ConsumePrefix(&rest, kLoadingPrefix);
      uint64_t block = 0;
      if ((!loading && !absl::ConsumePrefix(&rest, kHeldPrefix)) ||
          !absl::SimpleHexAtoi(rest, &block) ||
          !(loading ? stored.loading : stored.extents).Decode(block, value.to_str())) {
        return absl::DataLossError(
            absl::StrCat("the list of extents in ", object, " is damaged at \"", key, "\""));
      }
      after = key;
    }
  }
  stored.exists = true;
  return stored;
}

void StoreBlocks(const ExtentSet& extents, const std::vector<uint64_t>& blocks, ExtentUse use,
                 librados::ObjectWriteOperation* op) {
  std::map<std::string, librados::bufferlist> set;
  std::set<std::string> removed;
  for (const uint64_t block : blocks) {
    const std::string encoded = extents.Encode(block);
    const std::string key = BlockKey(use, block);
    if (encoded.empty()) {
      removed.insert(key);
    } else {
      set[key].append(encoded);
    }
  }
  if (!set.empty()) op->omap_set(set);
  if (!removed.empty()) op->omap_rm_keys(removed);
}

void ForgetLoading(const ExtentSet& loading, librados::ObjectWriteOperation* op) {
  StoreBlocks(ExtentSet(), loading.Blocks(), ExtentUse::kLoading, op);
}

RadosLayer::RadosLayer(RadosClient* client, LayerId id, StoredLayer stored)
    : client_(client),
      id_(id),
      number_(NextNumber()),
      extents_(std::move(stored.extents)),
      exists_(stored.exists) {}

bool RadosLayer::Has(ExtentIndex extent) const {
  MutexLock lock(mu_);
  return extents_.Has(extent);
}

uint64_t RadosLayer::count() const {
  MutexLock lock(mu_);
  return extents_.count();
}

std::vector<ExtentIndex> RadosLayer::Find(ExtentIndex first, ExtentIndex last, size_t most) const {
  MutexLock lock(mu_);
  return extents_.Find(first, last, most);
}

absl::Status RadosLayer::Change(const std::vector<ExtentIndex>& added,
                                const std::vector<ExtentIndex>& removed) {
  if (added.empty() && removed.empty()) return absl::OkStatus();
  MutexLock lock(mu_);
  if (next_ == nullptr) next_ = std::make_shared<Batch>();
  const std::shared_ptr<Batch> batch = next_;
  batch->added.insert(batch->added.end(), added.begin(), added.end());
  batch->removed.insert(batch->removed.end(), removed.begin(), removed.end());
  while (!batch->done) {
    if (storing_) {
      stored_.Wait(mu_);
      continue;
    }
    // This thread stores what all have added meanwhile.
    storing_ = true;
    next_ = nullptr;
    batch->status = Store(*batch);
    batch->done = true;
    storing_ = false;
    stored_.SignalAll();
  }
  return batch->status;
}

absl::Status RadosLayer::Store(const Batch& batch) {
  ExtentSet changed = extents_;  // only the one that stores changes them
  std::set<uint64_t> blocks;
  for (const ExtentIndex extent : batch.added) {
    changed.Add(extent);
    blocks.insert(extent / ExtentSet::kBlockExtents);
  }
  for (const ExtentIndex extent : batch.removed) {
    changed.Remove(extent);
    blocks.insert(extent / ExtentSet::kBlockExtents);
  }
  const std::vector<uint64_t> list(blocks.begin(), blocks.end());
  RadosChange change;
  change.object = LayerObject(id_);
  change.fill = [&](auto* op) { StoreBlocks(changed, list, ExtentUse::kHeld, op); };
  change.expected = exists_;
  change.frees = batch.added.empty();
  mu_.Unlock();
  const absl::Status status = client_->Apply("listing extents", change);
  mu_.Lock();
  if (!status.ok()) return status;
  exists_ = true;
  extents_ = std::move(changed);
  return absl::OkStatus();
}

absl::Status RadosLayer::CommitLoad(const ExtentSet& loaded, const ExtentSet& marked) {
  RadosChange change;
  change.object = LayerObject(id_);
  change.fill = [&](auto* op) {
    ForgetLoading(marked, op);
    StoreBlocks(loaded, loaded.Blocks(), ExtentUse::kHeld, op);
  };
  if (absl::Status status = client_->Apply("committing a load", change); !status.ok()) {
    return status;
  }
  MutexLock lock(mu_);
  exists_ = true;
  extents_ = loaded;
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> RadosLayer::StoredBytes() {
  std::vector<ExtentIndex> sample;
  const uint64_t writes = writes_.load(std::memory_order_relaxed);
  {
    MutexLock lock(mu_);
    if (sampled_writes_ == writes || extents_.count() == 0) {
      return extents_.count() * extent_bytes_;
    }
    const std::vector<ExtentIndex> all = extents_.All();
    const size_t step = std::max<size_t>(1, all.size() / kSampledExtents);
    for (size_t i = 0; i < all.size(); i += step) sample.push_back(all[i]);
  }
  std::deque<ExtentSize> sizes(sample.size());
  int failed = 0;
  {
    RadosBatch batch(&client_->io());
    for (size_t i = 0; i < sample.size(); ++i) {
      librados::ObjectReadOperation op;
      sizes[i].Add(&op);
      // One that is listed may not be there: its write was never acknowledged.
      batch.Submit(ExtentObject(id_, sample[i]), &op, [&](int result) {
        if (result < 0 && result != -ENOENT) failed = result;
      });
    }
  }
  if (failed < 0) return client_->Failed("estimating a layer's size", failed);
  uint64_t total = 0;
  for (ExtentSize& size : sizes) total += size.bytes();
  MutexLock lock(mu_);
  extent_bytes_ = std::max<uint64_t>(1, total / sample.size());
  sampled_writes_ = writes;
  return extents_.count() * extent_bytes_;
}

uint64_t RadosLayer::KnownBytes() const {
  MutexLock lock(mu_);
  return extents_.count() * extent_bytes_;
}

}  // namespace faultline
