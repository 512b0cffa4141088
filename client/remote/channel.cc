// SPDX-License-Identifier: Apache-2.0
#include "client/remote/channel.h"

#include <absl/strings/match.h>
#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/strip.h>
#include <grpc/grpc.h>
#include <grpc/impl/codegen/grpc_types.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include <string>

namespace faultline {

absl::Status CheckServerAddress(absl::string_view address) {
  absl::string_view path = address;
  if (absl::ConsumePrefix(&path, "unix:")) {
    if (!path.empty()) return absl::OkStatus();
  } else if (const size_t colon = address.rfind(':');
             colon != absl::string_view::npos && colon > 0) {
    int port = 0;
    const absl::string_view host = address.substr(0, colon);
    const bool one_host =
        !absl::StrContains(host, ':') || (absl::StartsWith(host, "[") && absl::EndsWith(host, "]"));
    if (one_host && absl::SimpleAtoi(address.substr(colon + 1), &port) && port > 0 &&
        port < 65536) {
      return absl::OkStatus();
    }
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "\"", address, "\" is no server address; write host:port (127.0.0.1:7400) or unix:path"));
}

std::shared_ptr<grpc::Channel> NewChannel(absl::string_view address) {
  // Held for the life of the process: when gRPC's last object goes, 1.51 joins its backup poller,
  // which may sit in epoll_wait for ten seconds.
  [[maybe_unused]] static const bool initialised = (grpc_init(), true);
  grpc::ChannelArguments arguments;
  // Else all channels to one address share one connection.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetMaxSendMessageSize(-1);
  // What is to be tried again is the callers' business.
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  // A server that has gone without a word is noticed within 20 s.
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 10'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  // One that comes back is found within about a second.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1'000);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 2'000);  // in truth: time to connect
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_FRAME_SIZE, 1 << 20);
  // What may be on its way in one stream: enough for 1 GiB/s over a round trip of 15 ms. The
  // default of 64 KiB is too little for any.
  arguments.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 16 << 20);
  return grpc::CreateCustomChannel(std::string(address), grpc::InsecureChannelCredentials(),
                                   arguments);
}

}  // namespace faultline
