// SPDX-License-Identifier: Apache-2.0
//
// PageService: the data plane. Reads and writes pages of volumes for agents; see pager.proto for
// the contract and page_stream.h for how a stream is served.
#ifndef FAULTLINE_SERVER_PAGE_SERVICE_H_
#define FAULTLINE_SERVER_PAGE_SERVICE_H_

#include <cstdint>

#include "proto/pager.grpc.pb.h"
#include "server/access_control.h"
#include "server/counters.h"
#include "server/page_stream.h"
#include "server/worker_pool.h"

namespace faultline {

// Thread-safe. Everything is borrowed and must outlive the service and its calls.
//
// Fetch and Write take raw messages, so that one that cannot be parsed is told from the end of the
// stream, and so that answers are serialised by workers.
class PageService final
    : public rpc::PageService::WithAsyncMethod_OpenVolume<
          rpc::PageService::WithAsyncMethod_GetWorkingSet<
              rpc::PageService::WithAsyncMethod_MergeWorkingSet<
                  rpc::PageService::WithRawMethod_Fetch<
                      rpc::PageService::WithRawMethod_Write<rpc::PageService::Service>>>>> {
 public:
  struct Environment {
    const AccessControl* access;
    ServerCounters* counters;
    WorkerPool* control_workers;  // for the unary calls
    PageStream::Environment streams;
    uint64_t max_pages_per_request;
  };

  explicit PageService(const Environment& environment) : environment_(environment) {}

  // Begins to take calls. REQUIRES: the server that the service is registered with has started.
  // Call once.
  void Serve();

 private:
  const Environment environment_;
};

}  // namespace faultline

#endif  // FAULTLINE_SERVER_PAGE_SERVICE_H_
