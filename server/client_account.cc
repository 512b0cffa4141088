// SPDX-License-Identifier: Apache-2.0
#include "server/client_account.h"

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>

namespace faultline {
namespace {

// Accounts that nobody holds any more are dropped when there are this many.
constexpr size_t kLookAfter = 256;

std::string NameOf(absl::string_view identity, absl::string_view peer) {
  if (!identity.empty()) return absl::StrCat("client \"", identity, "\"");
  // "ipv4:10.0.0.7:51112", "ipv6:%5B::1%5D:51112", "unix:" and the like: each connection has
  // another port.
  const bool has_port = absl::StartsWith(peer, "ipv");
  return absl::StrCat("host ", has_port ? peer.substr(0, peer.rfind(':')) : peer.substr(0, 5));
}

}  // namespace

absl::Status ClientAccount::OpenStream() {
  MutexLock lock(mu_);
  if (streams_ >= max_streams_) {
    return absl::ResourceExhaustedError(
        absl::StrCat(name_, " has ", streams_,
                     " streams open, the most that one may have here (--client-streams); close "
                     "some"));
  }
  ++streams_;
  return absl::OkStatus();
}

void ClientAccount::CloseStream() {
  MutexLock lock(mu_);
  --streams_;
}

std::shared_ptr<ClientAccount> ClientAccounts::Of(absl::string_view identity,
                                                  absl::string_view peer) {
  const std::string name = NameOf(identity, peer);
  MutexLock lock(mu_);
  if (accounts_.size() >= kLookAfter) {
    std::erase_if(accounts_, [](const auto& account) { return account.second.expired(); });
  }
  std::weak_ptr<ClientAccount>& known = accounts_[name];
  std::shared_ptr<ClientAccount> account = known.lock();
  if (account == nullptr) {
    account = std::make_shared<ClientAccount>(next_++, name, limits_);
    known = account;
  }
  return account;
}

}  // namespace faultline
