// SPDX-License-Identifier: Apache-2.0
//
// PageExtractor: takes pages out of the memory of a target so that no write of it is lost: a store
// of the program lands either in the bytes that were taken, or waits in a fault.
#ifndef FAULTLINE_CLIENT_EVICT_PAGE_EXTRACTOR_H_
#define FAULTLINE_CLIENT_EVICT_PAGE_EXTRACTOR_H_

#include <absl/status/status.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "client/uffd/uffd.h"
#include "proto/page.h"

namespace faultline {

enum class Extraction : uint8_t {
  kTaken,    // its bytes were copied, and the next access faults
  kMissing,  // there was no page
  kBusy,     // it stays where it is: pinned for I/O, locked, shared in a way that cannot be undone
};

// One caller at a time.
class PageExtractor {
 public:
  // The most pages of one call.
  static constexpr size_t kMaxBatch = 256;

  virtual ~PageExtractor() = default;

  // Takes the pages at `addresses` (page aligned, ascending) and puts the bytes of the n-th at
  // `bytes` + n * kPageSize, where its outcome is kTaken. Threads that wait in write-protection
  // faults of these pages are woken before it returns, and none sleeps that came meanwhile.
  //
  // The caller holds the shared side of the map-changing lock, so that no event is read: either the
  // addresses mean what the agent believes, or the kernel refuses (UNAVAILABLE: nothing was taken
  // but what `outcomes` says; try again once events were read). NOT_FOUND: the target is gone.
  // DEADLINE_EXCEEDED: the target's part in it did not answer, and will not act on it any more.
  // FAILED_PRECONDITION: nothing can be taken of this target any more. DATA_LOSS: what was taken
  // cannot be had; the target must not go on.
  //
  // REQUIRES: none of the pages is being filled meanwhile, and none is one that the program has
  // discarded and that was not filled since: the kernel raises the event of a discard first and
  // drops the page later, so that it may still be there with what it had.
  virtual absl::Status Extract(std::span<const uint64_t> addresses, std::span<Extraction> outcomes,
                               std::byte* bytes) = 0;

  // Copies what the n-th of `pages` (ascending) holds to `bytes` + n * kPageSize and leaves it
  // where it is, mapped or not; a page that is not there reads as zeros. What the target writes
  // meanwhile may be in it, or not, or in part. UNIMPLEMENTED where pages can only be taken out.
  virtual absl::Status Read(std::span<const PageIndex> /*pages*/, std::byte* /*bytes*/) {
    return absl::UnimplementedError("pages of this memory can only be taken out of it");
  }

  // What was taken last has a place of its own by now. To be called before the lock is let go of.
  virtual void Release() {}

  // What another agent has taken, and was killed before Release().
  struct Leftover {
    std::vector<uint64_t> addresses;  // of the pages that were taken
    std::vector<std::byte> bytes;     // of one after the other
  };
  virtual Leftover TakeLeftover() const { return {}; }
  // The parts of `range` that have pages, where the page tables of the process do not tell. The
  // caller holds the map-changing lock.
  virtual std::optional<std::vector<AddressRange>> PresentIn(AddressRange /*range*/) const {
    return std::nullopt;
  }
  // Undoes what another agent may have done to pages of `ranges` that are there. No event is
  // outstanding.
  virtual void Recover(const std::vector<AddressRange>& /*ranges*/) {}
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_EVICT_PAGE_EXTRACTOR_H_
