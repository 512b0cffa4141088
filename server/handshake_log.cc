// SPDX-License-Identifier: Apache-2.0
#include "server/handshake_log.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/strip.h>
#include <grpc/support/log.h>

#include <set>
#include <utility>

#include "proto/log.h"
#include "proto/mutex.h"

namespace faultline {
namespace {

// As gRPC 1.51 writes it.
constexpr absl::string_view kFailed = "Handshake failed with fatal error ";

struct Listeners {
  Mutex mu;
  std::set<const HandshakeListener*> all ABSL_GUARDED_BY(mu);
};

// Never destroyed: threads of gRPC may still write to the log when the process ends.
Listeners& TheListeners() {
  static auto* const listeners = new Listeners;
  return *listeners;
}

void LogOfGrpc(gpr_log_func_args* message) {
  LogDebug(absl::StrCat("gRPC: ", message->message));
  absl::string_view text = message->message;
  if (!absl::ConsumePrefix(&text, kFailed)) return;
  Listeners& listeners = TheListeners();
  MutexLock lock(listeners.mu);
  for (const HandshakeListener* listener : listeners.all) listener->Tell(text);
}

}  // namespace

void TakeLogOfGrpc() { gpr_set_log_function(&LogOfGrpc); }

HandshakeListener::HandshakeListener(std::function<void(absl::string_view why)> failed)
    : failed_(std::move(failed)) {
  TakeLogOfGrpc();
  Listeners& listeners = TheListeners();
  MutexLock lock(listeners.mu);
  listeners.all.insert(this);
}

HandshakeListener::~HandshakeListener() {
  Listeners& listeners = TheListeners();
  MutexLock lock(listeners.mu);
  listeners.all.erase(this);
}

}  // namespace faultline
