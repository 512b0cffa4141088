// SPDX-License-Identifier: Apache-2.0
//
// gRPC tells of a TLS handshake that failed (no certificate, an expired one, one of another
// authority, no TLS at all) to nobody but its own log, and there without the address of the peer.
// This reads that log.
#ifndef FAULTLINE_SERVER_HANDSHAKE_LOG_H_
#define FAULTLINE_SERVER_HANDSHAKE_LOG_H_

#include <absl/strings/string_view.h>

#include <functional>

namespace faultline {

// From here on gRPC's messages of this process go to our log, as of level debug: what matters of
// them comes as a status as well, or to whom a HandshakeListener calls.
void TakeLogOfGrpc();

// Calls `failed` for each handshake that fails in this process, with the reason, on any thread,
// until it is destroyed. Thread-safe.
class HandshakeListener {
 public:
  explicit HandshakeListener(std::function<void(absl::string_view why)> failed);
  ~HandshakeListener();
  HandshakeListener(const HandshakeListener&) = delete;
  HandshakeListener& operator=(const HandshakeListener&) = delete;

  void Tell(absl::string_view why) const { failed_(why); }

 private:
  const std::function<void(absl::string_view)> failed_;
};

}  // namespace faultline

#endif  // FAULTLINE_SERVER_HANDSHAKE_LOG_H_
