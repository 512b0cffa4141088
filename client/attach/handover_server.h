// SPDX-License-Identifier: Apache-2.0
//
// HandoverServer: the Unix socket at which processes hand their userfaultfd to the agent.
//
// A typical handover: a peer connects; one thread, which serves all connections, reads its request
// and collects the descriptors that come with any part of it; one of a few workers opens the
// volume, which may block, and calls Pager::Attach; the peer is answered. handover_message.h has
// the texts.
//
// A peer that speaks Firecracker's form is never answered, and has registered its memory before it
// connects. So:
// - a page server that is down does not lose its handover: opening the volume is tried again until
//   the process ends or the fault deadline has passed;
// - a handover that fails for good (that, a volume that does not exist, a text with a descriptor
// that is
//   no handover, a handover without a descriptor, a descriptor that is no userfaultfd) gets the
//   process killed, with the reason in the log: its threads would hang for ever on the first page
//   that they touch, and a virtual machine that ends with a reason can be restarted, where one that
//   hangs looks alive. Only under FaultPolicy::kWait it is left alone.
//
// The end of a connection means nothing to its attachment: old Firecrackers close theirs right
// after the handover. An attachment ends by {"detach":true} on the connection that made it, or with
// the process.
#ifndef FAULTLINE_CLIENT_ATTACH_HANDOVER_SERVER_H_
#define FAULTLINE_CLIENT_ATTACH_HANDOVER_SERVER_H_

#include <absl/status/statusor.h>
#include <absl/time/time.h>
#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "client/attach/handover_workers.h"
#include "client/pager.h"
#include "client/source/page_source.h"

namespace faultline {

struct HandoverServerOptions {
  std::string socket_path;
  mode_t socket_mode = 0660;
  SocketOwner socket_owner = {};
  // Of the service manager, taken over by Start(): none, or the one that listens at `socket_path`
  // already, whose mode and whose path are not ours then.
  std::vector<int> passed_sockets = {};
  // A peer must have sent a whole request, and taken its answer, within this time: after
  // connecting, and again after each answer, until it has an attachment. Otherwise it is dropped.
  absl::Duration handover_timeout = absl::Seconds(10);
  // More are not accepted until one ends; they wait in the socket's queue, so none is lost.
  size_t max_connections = 1024;
  HandoverWorkersOptions workers;
};

// StopHandovers() and destruction are for one thread.
class HandoverServer {
 public:
  // Listens on return. `pager` must outlive the server. Errors as of ListeningSocket::Open.
  static absl::StatusOr<std::unique_ptr<HandoverServer>> Start(const HandoverServerOptions& options,
                                                               Pager* pager,
                                                               OpenSource open_source);

  // StopHandovers(), then closes all connections, which tells peers that watch theirs that the
  // agent is gone.
  virtual ~HandoverServer() = default;

  // Has the Pager go on with an attachment that another agent has left. For a volume that cannot be
  // opened, and for one that fails for good, what is said above of Firecracker's form holds, under
  // the attachment's own fault policy.
  virtual void Adopt(LeftAttachment left) = 0;

  // Requests that HandoverWorkersOptions::permissions have not allowed. From any thread.
  virtual uint64_t refused() const = 0;

  // Stops listening, and refuses every request from here on; handovers under way fail. After it
  // nothing here calls the Pager. Returns within HandoverWorkersOptions::try_timeout. Idempotent.
  virtual void StopHandovers() = 0;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_ATTACH_HANDOVER_SERVER_H_
