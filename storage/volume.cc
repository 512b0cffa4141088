// SPDX-License-Identifier: Apache-2.0
#include "storage/volume.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <span>
#include <utility>

#include "proto/page_codec.h"

namespace faultline {
namespace {

// A trim of more than this is done piece by piece where shadows may be needed, so that the shadows
// of one piece, some 40 bytes each while they are written, stay below 3 MiB.
constexpr PageCount kTrimPiece{uint64_t{1} << 16};

// What is read at once from a store that others change, too, and kept until it is known to be
// right: 4 MiB.
constexpr PageCount kSharedPiece{1024};

// How often a call begins anew because another process has changed the volume meanwhile. Each time
// that one has got something done.
constexpr int kSharedAttempts = 64;

absl::Status TooManyChanges(absl::string_view volume) {
  return absl::UnavailableError(absl::StrCat("volume \"", volume,
                                             "\" is being changed through other servers all the "
                                             "time; try again"));
}

// Reads through a stack of layers. What one layer does not hold is looked for in the next, gap by
// gap, while the layer above is still being read: nothing is copied, and the whole range of the top
// layer, the only one that can change, is read by one call and so is of one moment.
class StackReader {
 public:
  // Of one layer, as PageStore::Read() and ReadAtHand().
  using ReadLayer = absl::Status (PageStore::*)(LayerId, PageRange, PageStore::Visitor);

  StackReader(PageStore& store, std::span<const LayerId> layers, Volume::DataVisitor data,
              Volume::ZeroVisitor zero, ReadLayer read_layer = &PageStore::Read)
      : store_(store), read_layer_(read_layer), layers_(layers), data_(data), zero_(zero) {}

  absl::Status Read(PageRange range) {
    if (absl::Status status = ReadFrom(0, range); !status.ok()) return status;
    return FlushZeros();
  }
  // Whether anything was looked for in another layer than the top one.
  bool went_below() const { return went_below_; }

 private:
  // Hands out `range` as the layers from number `depth` on have it.
  absl::Status ReadFrom(size_t depth, PageRange range) {
    if (range.empty()) return absl::OkStatus();
    if (depth == layers_.size()) return AddZeros(range);
    went_below_ = went_below_ || depth > 0;
    PageIndex next = range.first;  // everything before it was handed out
    absl::Status status = (store_.*read_layer_)(
        layers_[depth], range, [&](PageIndex page, absl::string_view encoded) -> absl::Status {
          if (page < next || page >= range.end()) {
            return absl::DataLossError(absl::StrCat("layer ", layers_[depth].raw(), " gave page ",
                                                    page.raw(), " out of order"));
          }
          if (absl::Status below = ReadFrom(depth + 1, PageRange::Between(next, page));
              !below.ok()) {
            return below;
          }
          next = page + PageCount(1);
          return Give(page, encoded);
        });
    if (!status.ok()) return status;
    return ReadFrom(depth + 1, PageRange::Between(next, range.end()));
  }

  absl::Status Give(PageIndex page, absl::string_view encoded) {
    if (IsEncodedZeroPage(encoded)) {
      // The header is gone once this is a run of zeros, so a damaged one must be noticed here.
      if (absl::Status status = VerifyPage(page, encoded); !status.ok()) return status;
      return AddZeros(PageRange::Single(page));
    }
    if (absl::Status status = FlushZeros(); !status.ok()) return status;
    return data_(page, encoded);
  }

  absl::Status AddZeros(PageRange range) {
    if (zeros_.empty()) zeros_.first = range.first;
    zeros_.count += range.count;
    return absl::OkStatus();
  }

  absl::Status FlushZeros() {
    const PageRange run = std::exchange(zeros_, PageRange());
    return run.empty() ? absl::OkStatus() : zero_(run);
  }

  PageStore& store_;
  const ReadLayer read_layer_;
  const std::span<const LayerId> layers_;
  const Volume::DataVisitor data_;
  const Volume::ZeroVisitor zero_;
  PageRange zeros_;  // found, and not handed out yet: neighbours become one run
  bool went_below_ = false;
};

absl::Status CheckWithin(const VolumeInfo& info, PageRange range) {
  if (IsWithin(range.first.raw(), range.count.raw(), info.size())) return absl::OkStatus();
  return absl::OutOfRangeError(absl::StrCat("volume \"", info.name, "\" has ", info.size().raw(),
                                            " pages; ", range.count.raw(), " from page ",
                                            range.first.raw(), " reach beyond them"));
}

}  // namespace

Volume::Volume(PageStore* store, VolumeRecords* records, VolumeInfo info)
    : store_(store), records_(records), info_(std::move(info)) {}

VolumeInfo Volume::info() const {
  SharedLock lock(mu_);
  return info_;
}

VolumeRole Volume::RoleOf(absl::string_view identity) const {
  SharedLock lock(mu_);
  return info_.access.RoleOf(identity);
}

absl::Status Volume::CheckExists() const {
  if (!deleted_) return absl::OkStatus();
  return absl::NotFoundError(absl::StrCat("volume \"", info_.name, "\" was deleted"));
}

absl::Status Volume::CheckWritable() const {
  if (absl::Status status = CheckExists(); !status.ok()) return status;
  if (store_->read_only()) {
    return absl::FailedPreconditionError(
        absl::StrCat("volume \"", info_.name, "\" is served read-only, from a raw image"));
  }
  if (info_.kind == VolumeInfo::Kind::kSnapshot) {
    return absl::FailedPreconditionError(absl::StrCat(
        "volume \"", info_.name, "\" is a snapshot, which never changes; write to a clone of it"));
  }
  return absl::OkStatus();
}

absl::Status Volume::Read(PageRange range, DataVisitor data, ZeroVisitor zero) {
  if (!store_->shared()) {
    SharedLock lock(mu_);
    if (absl::Status status = CheckExists(); !status.ok()) return status;
    if (absl::Status status = CheckWithin(info_, range); !status.ok()) return status;
    return StackReader(*store_, info_.layers, data, zero).Read(range);
  }
  {
    SharedLock lock(mu_);
    if (absl::Status status = CheckExists(); !status.ok()) return status;
    if (absl::Status status = CheckWithin(info_, range); !status.ok()) return status;
  }
  while (!range.empty()) {
    const PageRange piece{range.first, std::min(range.count, kSharedPiece)};
    if (absl::Status status = ReadShared(piece, data, zero); !status.ok()) return status;
    range = PageRange::Between(piece.end(), range.end());
  }
  return absl::OkStatus();
}

absl::Status Volume::ReadParts(PageRange piece, From from, std::vector<Part>* parts, bool* known) {
  const LayerId top = info_.layers.front();
  const uint64_t before = store_->Ownership(top);
  const auto add_data = [&](PageIndex page, absl::string_view encoded) {
    parts->push_back({PageRange::Single(page), std::string(encoded)});
    return absl::OkStatus();
  };
  const auto add_zeros = [&](PageRange zeros) {
    parts->push_back({zeros, {}});
    return absl::OkStatus();
  };
  StackReader reader(*store_, info_.layers, add_data, add_zeros,
                     from == From::kAtHand ? &PageStore::ReadAtHand : &PageStore::Read);
  const absl::Status status = reader.Read(piece);
  // To be the owner says that of the top layer only: while the others were read, another owner
  // may have had the volume, and deleted them.
  *known = before != 0 && store_->Ownership(top) == before && !reader.went_below();
  return status;
}

absl::Status Volume::HandOut(const std::vector<Part>& parts, DataVisitor data, ZeroVisitor zero) {
  for (const Part& part : parts) {
    const absl::Status status =
        part.encoded.empty() ? zero(part.range) : data(part.range.first, part.encoded);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status Volume::ReadShared(PageRange piece, DataVisitor data, ZeroVisitor zero) {
  std::vector<Part> parts;
  std::vector<LayerId> layers;
  std::string name;
  for (int attempt = 0; attempt < kSharedAttempts; ++attempt) {
    parts.clear();
    bool known = false;
    absl::Status status;
    {
      SharedLock lock(mu_);
      if (absl::Status exists = CheckExists(); !exists.ok()) return exists;
      layers = info_.layers;
      name = info_.name;
      status = ReadParts(piece, From::kAnywhere, &parts, &known);
    }
    if (!status.ok() && !absl::IsAborted(status)) return status;
    if (!status.ok() || !known) {
      const absl::StatusOr<bool> current = records_->IsCurrent(*this, layers);
      if (!current.ok()) return current.status();
      if (!status.ok() || !*current) continue;
    }
    return HandOut(parts, data, zero);
  }
  return TooManyChanges(name);
}

bool Volume::ReadAtHand(PageRange range, DataVisitor data, ZeroVisitor zero) {
  if (range.count > kSharedPiece) return false;
  if (!mu_.TryLockShared()) return false;
  std::vector<Part> parts;
  bool known = false;
  const bool read = CheckExists().ok() && CheckWithin(info_, range).ok() &&
                    ReadParts(range, From::kAtHand, &parts, &known).ok() &&
                    (known || records_->AreKnownToBeCurrent());
  mu_.UnlockShared();
  return read && HandOut(parts, data, zero).ok();
}

PageCount Volume::ZerosFrom(PageIndex first, PageCount most) {
  if (!mu_.TryLockShared()) return PageCount(0);
  const PageCount zeros = ZerosAtHand(first, most);
  mu_.UnlockShared();
  return zeros;
}

PageCount Volume::ZerosAtHand(PageIndex first, PageCount most) {
  if (deleted_) return PageCount(0);
  const uint64_t before = store_->Ownership(info_.layers.front());
  if (before == 0) return PageCount(0);  // what others write is not known here
  // Nor, without a question to the store, that the lower ones are still the volume's.
  if (store_->shared() && info_.layers.size() > 1) return PageCount(0);
  PageRange zeros{first, PageCount(0)};
  const PageRange look = PageRange{first, most}.Intersect({PageIndex(0), info_.size()});
  // Ends with an error where it finds data, or fails.
  StackReader(
      *store_, info_.layers, [](PageIndex, absl::string_view) { return absl::CancelledError(); },
      [&](PageRange zero) {
        zeros.count += zero.count;
        return absl::OkStatus();
      },
      &PageStore::ReadAtHand)
      .Read(look)
      .IgnoreError();
  return store_->Ownership(info_.layers.front()) == before ? zeros.count : PageCount(0);
}

absl::StatusOr<bool> Volume::HoldsPages() const {
  bool holds = false;
  const absl::Status status = StackReader(
                                  *store_, info_.layers,
                                  [&](PageIndex, absl::string_view) {
                                    holds = true;
                                    return absl::CancelledError();
                                  },
                                  [](PageRange) { return absl::OkStatus(); })
                                  .Read({PageIndex(0), info_.size()});
  if (!holds && !status.ok()) return status;
  return holds;
}

absl::Status Volume::AddShadows(PageRange range, std::vector<PageIndex>* pages) const {
  const std::span<const LayerId> below = std::span(info_.layers).subspan(1);
  if (below.empty()) return absl::OkStatus();
  return StackReader(
             *store_, below,
             [&](PageIndex page, absl::string_view) {
               pages->push_back(page);
               return absl::OkStatus();
             },
             [](PageRange) { return absl::OkStatus(); })
      .Read(range);
}

absl::Status Volume::Apply(PageWrites* changes) {
  std::vector<PageIndex> shadows;
  for (const PageRange range : changes->deletes) {
    if (absl::Status status = AddShadows(range, &shadows); !status.ok()) return status;
  }
  std::string zeros;
  for (const PageIndex page : shadows) EncodeZeroPage(page, &zeros);
  absl::string_view rest = zeros;
  for (const PageIndex page : shadows) {
    changes->puts.push_back({page, rest.substr(0, kEncodedHeaderBytes)});
    rest.remove_prefix(kEncodedHeaderBytes);
  }
  return store_->Write(info_.layers.front(), *changes, info_.durability);
}

absl::Status Volume::ApplyInTurn(const VolumeWriter& writer, PageWrites* changes) {
  bool first = false;
  {
    SharedLock turn(turn_mu_);
    first = newest_ < writer;
  }
  if (first) {
    ExclusiveLock turn(turn_mu_);
    newest_ = std::max(newest_, writer);
  }
  SharedLock turn(turn_mu_);
  if (writer < newest_) {
    return absl::AbortedError(absl::StrCat("volume \"", info_.name, "\": a write of generation ",
                                           writer.generation, " came after one of generation ",
                                           newest_.generation,
                                           " and was not applied; send it again"));
  }
  return Apply(changes);
}

absl::Status Volume::CheckWriter(const VolumeWriter& writer) const {
  if (writer.epoch != 0 && writer.epoch == info_.epoch) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("volume \"", info_.name, "\": the writer of epoch ", writer.epoch,
                   " was fenced, the epoch is now ", info_.epoch,
                   "; open the volume for writing again to become its writer"));
}

absl::Status Volume::AsOwner(uint64_t epoch, absl::FunctionRef<absl::Status()> change) {
  for (int attempt = 0; attempt < kSharedAttempts; ++attempt) {
    {
      SharedLock lock(mu_);
      if (absl::Status status = CheckWritable(); !status.ok()) return status;
      const LayerId top = info_.layers.front();
      if (store_->Ownership(top) != 0) {
        absl::Status status = change();
        // Lost to another process in the middle: some of it may have been applied.
        if (!absl::IsAborted(status) || store_->Ownership(top) != 0) return status;
      }
    }
    if (absl::Status status = records_->Own(*this, epoch); !status.ok()) return status;
  }
  return TooManyChanges(info().name);
}

absl::Status Volume::Write(const VolumeWriter& writer, const VolumeWrites& writes) {
  if (writer.epoch == 0) {
    SharedLock lock(mu_);
    if (absl::Status status = CheckWritable(); !status.ok()) return status;
    return CheckWriter(writer);
  }
  return AsOwner(writer.epoch,
                 [&]() ABSL_SHARED_LOCKS_REQUIRED(mu_) { return WriteAsOwner(writer, writes); });
}

absl::Status Volume::WriteAsOwner(const VolumeWriter& writer, const VolumeWrites& writes) {
  if (absl::Status status = CheckWriter(writer); !status.ok()) return status;
  PageWrites changes;
  changes.puts.reserve(writes.pages.size());
  changes.deletes.reserve(writes.trims.size());
  for (const VolumeWrites::Page& write : writes.pages) {
    const PageRange range = PageRange::Single(write.page);
    if (absl::Status status = CheckWithin(info_, range); !status.ok()) return status;
    if (IsEncodedZeroPage(write.encoded)) {
      changes.deletes.push_back(range);
    } else {
      changes.puts.push_back({write.page, write.encoded});
    }
  }
  for (const PageRange range : writes.trims) {
    if (absl::Status status = CheckWithin(info_, range); !status.ok()) return status;
    if (!range.empty()) changes.deletes.push_back(range);
  }
  if (changes.puts.empty() && changes.deletes.empty()) return absl::OkStatus();
  return ApplyInTurn(writer, &changes);
}

absl::Status Volume::Trim(PageRange range) {
  return AsOwner(0, [&]() ABSL_SHARED_LOCKS_REQUIRED(mu_) { return TrimAsOwner(range); });
}

absl::Status Volume::TrimAsOwner(PageRange range) {
  if (absl::Status status = CheckWithin(info_, range); !status.ok()) return status;
  const PageCount at_once = info_.layers.size() == 1 ? range.count : kTrimPiece;
  while (!range.empty()) {
    const PageRange piece{range.first, std::min(at_once, range.count)};
    PageWrites changes;
    changes.deletes.push_back(piece);
    if (absl::Status status = Apply(&changes); !status.ok()) return status;
    range = PageRange::Between(piece.end(), range.end());
  }
  return absl::OkStatus();
}

}  // namespace faultline
