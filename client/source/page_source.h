// SPDX-License-Identifier: Apache-2.0
//
// PageSource: where an agent gets the pages of one volume from. It fetches and writes bytes and
// never touches the memory of a target: that is the Filler's work.
#ifndef FAULTLINE_CLIENT_SOURCE_PAGE_SOURCE_H_
#define FAULTLINE_CLIENT_SOURCE_PAGE_SOURCE_H_

#include <absl/functional/any_invocable.h>
#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>
#include <absl/time/time.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <span>

#include "proto/latency_histogram.h"
#include "proto/page.h"

namespace faultline {

// A run of pages as it came from a source, verified and decoded.
struct FetchedRun {
  PageRange range;
  const std::byte* bytes;  // range.size_bytes() of them; null: all of the run is zero
};

// Which lane a fetch takes: none delays those before it.
enum class FetchLane {
  kDemand,    // a thread of a target waits for it
  kPrefetch,  // one may soon
  kBulk,      // drain
};

// Where the time of demand fetches went, as far as a source can tell: on the way to the server and
// back (with all that waits for it on this side), in the server, and of that in its store.
struct FetchStages {
  LatencyHistogram wire, server, store;
};

// Thread-safe: any method may be called from any thread.
class PageSource {
 public:
  // Called exactly once for each Fetch, on an unspecified thread, possibly before Fetch returns.
  // On OK, the runs cover what was asked for, ascending, and stay valid only during the call.
  // Behind them there may be one more, of zeros, right behind what was asked for: a hole that need
  // not be asked for. It must not block, and it may call Fetch.
  using FetchDone = absl::AnyInvocable<void(absl::StatusOr<std::span<const FetchedRun>>)>;

  virtual ~PageSource() = default;

  // Starts reading `range`. Never blocks.
  // UNAVAILABLE, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED and ABORTED may pass when tried again.
  // DATA_LOSS: at least one page of the range is damaged; asked for alone, the others can be had.
  // NOT_FOUND: the volume is gone. OUT_OF_RANGE: it has no such page.
  // REQUIRES: `range` is not empty and has at most max_fetch() pages.
  virtual void Fetch(PageRange range, FetchLane lane, absl::Time deadline, FetchDone done) = 0;

  // The pages that the volume has.
  virtual PageCount size() const = 0;
  virtual PageCount max_fetch() const = 0;

  // Null where it cannot tell. Lives as long as the source.
  virtual const FetchStages* stages() const { return nullptr; }
};

// Whether a fetch that failed with `status` may succeed when it is tried again.
inline bool IsRetryable(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kAborted:
      return true;
    default:
      return false;
  }
}

// Opens the source of a volume by its name; may block until `deadline`. NOT_FOUND where there is no
// such volume, UNAVAILABLE where nobody answers. Thread-safe.
using OpenSource = std::function<absl::StatusOr<std::shared_ptr<PageSource>>(
    absl::string_view volume, absl::Time deadline)>;

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_SOURCE_PAGE_SOURCE_H_
