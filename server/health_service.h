// SPDX-License-Identifier: Apache-2.0
//
// HealthService: grpc.health.v1.Health. gRPC's own would bring threads with it that wait for gRPC,
// see call_loop.h.
#ifndef FAULTLINE_SERVER_HEALTH_SERVICE_H_
#define FAULTLINE_SERVER_HEALTH_SERVICE_H_

#include <grpcpp/impl/codegen/service_type.h>

#include <set>

#include "proto/mutex.h"
#include "server/call_loop.h"

namespace faultline {

// Speaks for the server as a whole, which is the service with the empty name; no other is known.
// Thread-safe. Must outlive its calls.
class HealthService final : public grpc::Service {
 public:
  enum class State { kServing, kNotServing };

  HealthService();

  // Begins to take calls, on `loop`, which is borrowed. REQUIRES: the server that the service is
  // registered with has started. Call once.
  void Serve(CallLoop* loop);

  // SERVING at first. Whoever watches is told.
  void Set(State state);

 private:
  class HealthCall;

  // Tells `call` of the state, now and whenever it changes, until Remove().
  void Add(HealthCall* call);
  void Remove(HealthCall* call);

  // Before the locks of the calls.
  Mutex mu_;
  State state_ ABSL_GUARDED_BY(mu_) = State::kServing;
  std::set<HealthCall*> calls_ ABSL_GUARDED_BY(mu_);
};

}  // namespace faultline

#endif  // FAULTLINE_SERVER_HEALTH_SERVICE_H_
