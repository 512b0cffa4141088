// SPDX-License-Identifier: Apache-2.0
//
// RoamingWriter: the one writer of a volume, at one of several servers of its store. When that
// cannot be used any more, it goes on at another with a new epoch.
//
// No write is applied twice, or late: a write that has no answer when the writer moves ends with
// UNAVAILABLE, and is sent again by its caller, with the new epoch. The old epoch is fenced before
// the new one is given out, so what the old server may still hold is refused by the store. And only
// the volume's last writer may go on: it shows the number that it has given itself, see
// OpenVolumeRequest.writer.
#ifndef FAULTLINE_CLIENT_REMOTE_ROAMING_WRITER_H_
#define FAULTLINE_CLIENT_REMOTE_ROAMING_WRITER_H_

#include <absl/container/flat_hash_map.h>
#include <absl/status/status.h>
#include <absl/time/time.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "client/remote/fetch_races.h"
#include "client/remote/peer.h"
#include "client/source/page_sink.h"
#include "proto/mutex.h"

namespace faultline {

// Thread-safe; but Move() is called by one thread at a time.
class RoamingWriter : public std::enable_shared_from_this<RoamingWriter> {
 public:
  // What opens the volume for a writer of this number.
  static rpc::OpenVolumeRequest OpenRequest(absl::string_view volume, uint64_t writer);

  // `opened` at `peer` with OpenRequest().
  RoamingWriter(std::string name, uint64_t writer, Peer* peer,
                const rpc::OpenVolumeResponse& opened);

  // A sink that writes through this, and keeps it.
  std::shared_ptr<PageSink> NewSink();
  // Open where the writer is.
  const std::shared_ptr<SharedVolume>& volume() const { return volume_; }

  // Whether its server can be used, or nothing would be gained by another: it was fenced.
  bool is_settled() const;
  // Goes on at `peer`; blocks until `deadline` at most. FAILED_PRECONDITION: it was fenced, and
  // every write ends so from here on. After any other error it stays where it is.
  absl::Status Move(Peer* peer, absl::Time deadline);
  const Peer* peer() const;

 private:
  class Sink;
  using Writes = absl::flat_hash_map<uint64_t, PageSink::WriteDone>;

  void Write(std::span<const PageToWrite> pages, absl::Time deadline, PageSink::WriteDone done);
  void OnWritten(uint64_t id, Peer* peer, absl::Status status);
  // What is written from here on goes to `peer`. Returns the writes that have no answer yet.
  Writes Settle(Peer* peer, const rpc::OpenVolumeResponse& opened);
  static void EndAll(Writes writes, const absl::Status& status);

  const std::string name_;
  const uint64_t writer_;
  const uint64_t identity_;
  const PageCount size_, max_write_;
  const std::shared_ptr<SharedVolume> volume_;

  mutable Mutex mu_;
  Peer* peer_ ABSL_GUARDED_BY(mu_) = nullptr;
  std::shared_ptr<PageSink> sink_ ABSL_GUARDED_BY(mu_);
  uint64_t epoch_ ABSL_GUARDED_BY(mu_) = 0;
  bool fenced_ ABSL_GUARDED_BY(mu_) = false;
  uint64_t next_id_ ABSL_GUARDED_BY(mu_) = 1;
  Writes under_way_ ABSL_GUARDED_BY(mu_);
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_REMOTE_ROAMING_WRITER_H_
