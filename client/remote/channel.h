// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_REMOTE_CHANNEL_H_
#define FAULTLINE_CLIENT_REMOTE_CHANNEL_H_

#include <absl/strings/string_view.h>
#include <grpcpp/channel.h>
#include <grpcpp/security/credentials.h>

#include <chrono>
#include <memory>
#include <string>

#include "client/remote/server_tls.h"

namespace faultline {

// How long a connection may be silent before the server is asked, and how long that may take.
struct KeepaliveTimes {
  std::chrono::milliseconds time, timeout;
};
inline constexpr KeepaliveTimes kKeepalive = {std::chrono::seconds(10), std::chrono::seconds(10)};
// Servers take a question every 5 s.
inline constexpr KeepaliveTimes kKeepaliveOfSeveral = {std::chrono::seconds(6),
                                                       std::chrono::seconds(2)};

enum class ChannelUse {
  kOnly,  // there is one server
  kOneOfSeveral,
  kWatched,  // the same; it is ready only while the server says that it serves (grpc.health.v1)
};

// Makes connections to one server. Thread-safe.
class ChannelMaker {
 public:
  ChannelMaker(absl::string_view address, const ServerTls& tls);

  // A connection of its own, made when it is first needed. With TLS, it goes on with the files as
  // they were then, and when it breaks is made again with those that are there then.
  std::shared_ptr<grpc::Channel> New(ChannelUse use) const;

 private:
  const std::string address_;
  const std::string server_name_;  // empty: the address's host
  const std::shared_ptr<grpc::ChannelCredentials> credentials_;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_REMOTE_CHANNEL_H_
