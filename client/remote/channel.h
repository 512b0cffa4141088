// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_REMOTE_CHANNEL_H_
#define FAULTLINE_CLIENT_REMOTE_CHANNEL_H_

#include <absl/status/status.h>
#include <absl/strings/string_view.h>
#include <grpcpp/channel.h>

#include <memory>

namespace faultline {

// INVALID_ARGUMENT, saying what is allowed, unless `address` is host:port or unix:path.
absl::Status CheckServerAddress(absl::string_view address);

// A connection of its own to the server at `address`, made when it is first needed.
std::shared_ptr<grpc::Channel> NewChannel(absl::string_view address);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_REMOTE_CHANNEL_H_
