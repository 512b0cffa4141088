// SPDX-License-Identifier: Apache-2.0
//
// PageService: the data plane. Reads and writes pages of volumes for agents; see pager.proto for
// the contract and page_stream.h for how a stream is served.
#ifndef FAULTLINE_SERVER_PAGE_SERVICE_H_
#define FAULTLINE_SERVER_PAGE_SERVICE_H_

#include <cstdint>

#include "proto/pager.grpc.pb.h"
#include "server/counters.h"
#include "server/page_stream.h"
#include "server/worker_pool.h"
#include "storage/volume_catalog.h"

namespace faultline {

// Thread-safe. Everything is borrowed and must outlive the service and its calls.
class PageService final
    : public rpc::PageService::WithCallbackMethod_OpenVolume<
          rpc::PageService::WithCallbackMethod_GetWorkingSet<
              rpc::PageService::WithCallbackMethod_MergeWorkingSet<
                  rpc::PageService::WithRawCallbackMethod_Fetch<
                      rpc::PageService::WithRawCallbackMethod_Write<rpc::PageService::Service>>>>> {
 public:
  struct Environment {
    VolumeCatalog* catalog;
    ServerCounters* counters;
    WorkerPool* control_workers;  // for the unary calls
    PageStream::Environment streams;
    uint64_t max_pages_per_request;
  };

  explicit PageService(const Environment& environment) : environment_(environment) {}

  grpc::ServerUnaryReactor* OpenVolume(grpc::CallbackServerContext* context,
                                       const rpc::OpenVolumeRequest* request,
                                       rpc::OpenVolumeResponse* response) override;
  grpc::ServerUnaryReactor* GetWorkingSet(grpc::CallbackServerContext* context,
                                          const rpc::GetWorkingSetRequest* request,
                                          rpc::GetWorkingSetResponse* response) override;
  grpc::ServerUnaryReactor* MergeWorkingSet(grpc::CallbackServerContext* context,
                                            const rpc::MergeWorkingSetRequest* request,
                                            rpc::MergeWorkingSetResponse* response) override;
  // Raw messages, so that one that cannot be parsed is told from the end of the stream, and so that
  // answers are serialised by workers.
  grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* Fetch(
      grpc::CallbackServerContext* context) override;
  grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* Write(
      grpc::CallbackServerContext* context) override;

 private:
  const Environment environment_;
};

}  // namespace faultline

#endif  // FAULTLINE_SERVER_PAGE_SERVICE_H_
