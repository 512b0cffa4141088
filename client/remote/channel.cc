// SPDX-License-Identifier: Apache-2.0
#include "client/remote/channel.h"

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <grpc/grpc.h>
#include <grpc/impl/codegen/grpc_types.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_certificate_verifier.h>
#include <grpcpp/security/tls_credentials_options.h>
#include <grpcpp/support/channel_arguments.h>

#include <string>

namespace faultline {

namespace {

// The provider, and with it a thread that looks at the files, is shared by all channels.
std::shared_ptr<grpc::ChannelCredentials> MakeCredentials(absl::string_view address,
                                                          const TlsFiles& files) {
  if (!files.any() || absl::StartsWith(address, "unix:")) {
    return grpc::InsecureChannelCredentials();
  }
  grpc::experimental::TlsChannelCredentialsOptions options;
  options.set_certificate_provider(
      std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(
          files.key, files.certificate, files.ca, files.reload_seconds));
  options.watch_root_certs();
  options.watch_identity_key_cert_pairs();
  options.set_certificate_verifier(
      std::make_shared<grpc::experimental::HostNameCertificateVerifier>());
  return grpc::experimental::TlsCredentials(options);
}

}  // namespace

std::vector<std::string> FlagsOf(const ServerTls& tls) {
  if (!tls.files.any()) return {};
  std::vector<std::string> flags = {absl::StrCat("--tls-ca=", tls.files.ca),
                                    absl::StrCat("--tls-cert=", tls.files.certificate),
                                    absl::StrCat("--tls-key=", tls.files.key)};
  if (!tls.server_name.empty())
    flags.push_back(absl::StrCat("--tls-server-name=", tls.server_name));
  return flags;
}

ChannelMaker::ChannelMaker(absl::string_view address, const ServerTls& tls)
    : address_(address),
      server_name_(tls.server_name),
      credentials_(MakeCredentials(address, tls.files)) {}

std::shared_ptr<grpc::Channel> ChannelMaker::New(ChannelUse use) const {
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
  // A server that has gone without a word is noticed within the sum of both.
  const KeepaliveTimes& keepalive = use == ChannelUse::kOnly ? kKeepalive : kKeepaliveOfSeveral;
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, static_cast<int>(keepalive.time.count()));
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, static_cast<int>(keepalive.timeout.count()));
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  // One that comes back is found within about a second.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1'000);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 2'000);  // in truth: time to connect
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_FRAME_SIZE, 1 << 20);
  // What may be on its way in one stream: enough for 1 GiB/s over a round trip of 15 ms. The
  // default of 64 KiB is too little for any.
  arguments.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 16 << 20);
  if (use == ChannelUse::kWatched) {
    // Only this policy looks at the health that the server tells of; it has one address here.
    arguments.SetServiceConfigJSON(
        R"({"loadBalancingConfig":[{"round_robin":{}}],"healthCheckConfig":{"serviceName":""}})");
  }
  if (!server_name_.empty()) arguments.SetSslTargetNameOverride(server_name_);
  return grpc::CreateCustomChannel(address_, credentials_, arguments);
}

}  // namespace faultline
