// SPDX-License-Identifier: Apache-2.0
//
// PageSink: where an agent writes the pages of one volume to.
#ifndef FAULTLINE_CLIENT_SOURCE_PAGE_SINK_H_
#define FAULTLINE_CLIENT_SOURCE_PAGE_SINK_H_

#include <absl/functional/any_invocable.h>
#include <absl/status/status.h>
#include <absl/strings/string_view.h>
#include <absl/time/time.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "client/source/page_source.h"
#include "proto/page.h"

namespace faultline {

struct PageToWrite {
  PageIndex page;
  const std::byte* bytes;  // kPageSize of them; null: zero, which needs no bytes on the way
};

// Thread-safe: any method may be called from any thread. May be destroyed while writes are under
// way.
class PageSink {
 public:
  // Called exactly once for each Write, on an unspecified thread, possibly before Write returns.
  // It must not block.
  using WriteDone = absl::AnyInvocable<void(absl::Status)>;

  virtual ~PageSink() = default;

  // Starts writing `pages`; their bytes are read before it returns. Never blocks. All are written,
  // or none. A page that is zero is trimmed, whether or not `bytes` is null, and takes no payload.
  //
  // OK: as durable as the volume's policy says, and every later fetch sees it.
  // UNAVAILABLE, DEADLINE_EXCEEDED, ABORTED: it may or may not be written, doing it again does no
  //   harm. It is never written later than a write of the same page that was started after `done`
  //   had been called.
  // RESOURCE_EXHAUSTED: the server has no room (or, for now, too much to do), and nothing was
  //   written: try again later.
  // FAILED_PRECONDITION: another writer has opened the volume since, or it is read-only: no write
  //   will ever succeed.
  // NOT_FOUND: the volume is gone. OUT_OF_RANGE: it has no such page.
  //
  // REQUIRES: `pages` are 1 to max_write(), ascending, no page twice, and none has another write
  // under way.
  virtual void Write(std::span<const PageToWrite> pages, absl::Time deadline, WriteDone done) = 0;

  // The pages that the volume has.
  virtual PageCount size() const = 0;
  virtual PageCount max_write() const = 0;
};

// Both ends of a volume that is written to.
struct VolumeIo {
  std::shared_ptr<PageSource> source;
  std::shared_ptr<PageSink> sink;
  std::string name = {};  // of the volume, where it is not known otherwise
};

// A volume that is to be made.
struct NewVolume {
  std::string name;
  uint64_t size_bytes = 0;      // all zero; or else
  std::string snapshot;         // a clone of this one
  std::string durability = {};  // "sync", "interval" or "none"; empty: "sync". Not of a clone
};

// Opens a volume for its one writer, which fences every earlier one: no write of theirs is applied
// from here on. FAILED_PRECONDITION where it is never written to, as a snapshot; otherwise as
// OpenSource.
using OpenVolumeIo =
    std::function<absl::StatusOr<VolumeIo>(absl::string_view volume, absl::Time deadline)>;

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_SOURCE_PAGE_SINK_H_
