// SPDX-License-Identifier: Apache-2.0
//
// PageServer: the agent's connections to a page server, and the sources and sinks that fetch and
// write through them.
// The rest of the client sees no gRPC: it is included in client/remote/ only.
#ifndef FAULTLINE_CLIENT_REMOTE_PAGE_SERVER_H_
#define FAULTLINE_CLIENT_REMOTE_PAGE_SERVER_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>
#include <absl/time/time.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "client/pollable.h"
#include "client/remote/server_tls.h"
#include "client/source/page_sink.h"
#include "client/source/page_source.h"
#include "proto/page_codec.h"
#include "proto/working_set.h"

namespace faultline {

struct PageServerOptions {
  // host:port, unix:path or dns:///host:port, or several with commas between them: servers of one
  // store, or of copies of it, which all have the same volumes (several_servers.h).
  std::string address;
  ServerTls tls = {};
  int threads = 2;  // that fill memory with pages that nobody waits for, beside one that receives
  // Requests that may be under way on one lane; more wait their turn in the client.
  size_t max_requests_in_flight = 1024;
  // Of the pages that are written. Compressing takes 3 to 5 us for a page with LZ4: less than a
  // link of 1 Gbit/s takes for it, more than one of 10 Gbit/s.
  Codec write_codec = Codec::kRaw;
};

// What one server has been used for.
struct PageServerStats {
  std::string address;
  bool is_connected = false;  // and says that it serves, and answers what it is asked
  uint64_t fetches = 0;       // that it was sent, for whatever reason
  uint64_t hedges = 0;        // of them, those that another server was slow with
  uint64_t hedges_won = 0;    // of those, the ones that it has answered first
  uint64_t failovers = 0;     // fetches and writers that have come to it from one that failed
};

// Thread-safe. Connects by itself, and again with back-off after a connection broke; what was under
// way then ends with UNAVAILABLE.
class PageServer {
 public:
  // Does not connect yet: a server that is down now is an error of the calls, not of this.
  // INVALID_ARGUMENT for an address of no form.
  static absl::StatusOr<std::unique_ptr<PageServer>> Create(const PageServerOptions& options);

  // Every source and sink must have been destroyed, but for those that only fetches under way keep:
  // those fetches end with an error, and when this returns nothing of them is left.
  virtual ~PageServer() = default;

  // A source for reading `volume`; waits for the server until `deadline` at most. NOT_FOUND where
  // there is no such volume, UNAVAILABLE, naming the address, where nobody answers. The source must
  // not outlive the PageServer.
  virtual absl::StatusOr<std::shared_ptr<PageSource>> OpenVolume(absl::string_view volume,
                                                                 absl::Time deadline) = 0;

  // Becomes the one writer of `volume`, and fences every earlier one; its source is the same as
  // that of OpenVolume(). FAILED_PRECONDITION where nobody may write it: a snapshot, or a raw
  // image; otherwise as OpenVolume(). The sink goes on, as the same writer, after the server has
  // gone away and come back. It must not outlive the PageServer.
  virtual absl::StatusOr<VolumeIo> OpenVolumeIo(absl::string_view volume, absl::Time deadline) = 0;

  // The working set of `volume`, a hint for prefetching: the pages that faults of earlier runs have
  // asked for, as MergeWorkingSet() has recorded them for this volume or, until it was cloned, for
  // its snapshot. Empty where nothing was recorded. Blocks, until `deadline` at most. The errors of
  // OpenVolume; FAILED_PRECONDITION for a volume larger than kMaxPageSetVolume; UNIMPLEMENTED from
  // an old server, which keeps none.
  virtual absl::StatusOr<WorkingSet> GetWorkingSet(absl::string_view volume,
                                                   absl::Time deadline) = 0;

  // Adds `pages` to the working set of `volume`, behind those that it has; also where that is a
  // snapshot or somebody else's to write. Blocks, until `deadline` at most. Durable on OK; after an
  // error it may or may not have been done, and doing it again does no harm. The errors of
  // GetWorkingSet; FAILED_PRECONDITION also where the server is read-only, or the volume has not
  // the size that the set is of; RESOURCE_EXHAUSTED where `pages`, or the whole, has more than
  // kMaxPageSetRuns, or the server's disk is full.
  virtual absl::Status MergeWorkingSet(absl::string_view volume, const WorkingSet& pages,
                                       absl::Time deadline) = 0;

  // Whether a connection stands. Where none does, it is tried to make one, again and again; waits
  // for that, for `patience` at most, unless the last try has failed.
  virtual bool IsReachable(absl::Duration patience) = 0;

  // Of each server that was ever known, in the order in which they became so.
  virtual std::vector<PageServerStats> Stats() = 0;

  // Receives answers on the thread that polls, instead of the server's own. Lives as long as this.
  virtual Pollable* pollable() = 0;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_REMOTE_PAGE_SERVER_H_
