// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_REMOTE_REMOTE_PAGE_SINK_H_
#define FAULTLINE_CLIENT_REMOTE_REMOTE_PAGE_SINK_H_

#include <memory>

#include "client/remote/request_lane.h"
#include "client/remote/write_rpc.h"
#include "client/source/page_sink.h"
#include "proto/page_codec.h"
#include "proto/pager.pb.h"

namespace faultline {

// Writes to `volume`, as it was opened for writing, through a lane that is borrowed and must live
// until the last write has ended. Pages are encoded once, by the caller's thread.
//
// A write that ends without an answer may still be on its way, or wait in the server, and would be
// applied over a newer one of the same page. So before the caller hears of such an end the sink
// raises its generation, which goes with every write: the server applies nothing of an older one
// from the first write of the new one on. What else was under way then is ABORTED there, and done
// again like any other.
std::shared_ptr<PageSink> NewRemotePageSink(RequestLane<WriteRpc>* lane,
                                            const rpc::OpenVolumeResponse& volume, Codec codec);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_REMOTE_REMOTE_PAGE_SINK_H_
