// SPDX-License-Identifier: Apache-2.0
#include "client/remote/server_list.h"

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_split.h>
#include <absl/strings/strip.h>
#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <optional>

#include "proto/host_port.h"

namespace faultline {
namespace {

constexpr absl::string_view kNameScheme = "dns:///";

bool IsHostPort(absl::string_view address) {
  const std::optional<HostPort> parts = SplitHostPort(address);
  return parts && !absl::StrContains(parts->host, '/') && parts->port != "0";
}

std::optional<ServerEntry> ParseEntry(absl::string_view text) {
  absl::string_view rest = text;
  if (absl::ConsumePrefix(&rest, "unix:")) {
    if (rest.empty()) return std::nullopt;
    return ServerEntry{std::string(text), false};
  }
  const bool is_name = absl::ConsumePrefix(&rest, kNameScheme);
  if (!IsHostPort(rest)) return std::nullopt;
  return ServerEntry{std::string(rest), is_name};
}

std::string ToAddress(const sockaddr* address, absl::string_view port) {
  char text[INET6_ADDRSTRLEN] = {};
  if (address->sa_family == AF_INET) {
    inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(address)->sin_addr, text, sizeof text);
    return absl::StrCat(text, ":", port);
  }
  inet_ntop(AF_INET6, &reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr, text,
            sizeof text);
  return absl::StrCat("[", text, "]:", port);
}

}  // namespace

absl::StatusOr<std::vector<ServerEntry>> ParseServers(absl::string_view servers,
                                                      const ServerTls& tls) {
  std::vector<ServerEntry> entries;
  for (const absl::string_view text : absl::StrSplit(servers, ',')) {
    std::optional<ServerEntry> entry = ParseEntry(text);
    if (!entry) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"", text, "\" is no server address; write host:port (127.0.0.1:7400), ",
                       "unix:path or dns:///host:port, or several with commas between them"));
    }
    const bool is_known = std::any_of(entries.begin(), entries.end(), [&](const auto& other) {
      return other.address == entry->address && other.is_name == entry->is_name;
    });
    if (is_known) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"", text, "\" stands twice in \"", servers, "\"; name each server once"));
    }
    entries.push_back(*std::move(entry));
  }
  if (entries.size() > kMaxServers) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", servers, "\" names ", entries.size(), " servers, at most ", kMaxServers,
                     " are used at a time; name fewer, or a dns:/// name that has them all"));
  }
  if (!tls.server_name.empty() && !tls.files.any()) {
    return absl::InvalidArgumentError("--tls-server-name needs --tls-ca, --tls-cert and --tls-key");
  }
  if (absl::Status status = CheckTlsFiles(tls.files); !status.ok()) return status;
  return entries;
}

bool IsNumeric(const ServerEntry& entry) {
  if (absl::StartsWith(entry.address, "unix:")) return true;
  const std::optional<HostPort> parts = SplitHostPort(entry.address);
  in6_addr address;
  return parts && (inet_pton(AF_INET, parts->host.c_str(), &address) == 1 ||
                   inet_pton(AF_INET6, parts->host.c_str(), &address) == 1);
}

absl::StatusOr<std::vector<ServerAddress>> LookUpServers(const ServerEntry& entry) {
  if (IsNumeric(entry)) return std::vector<ServerAddress>{{entry.address, ""}};
  const std::optional<HostPort> parts = SplitHostPort(entry.address);
  if (!parts) return absl::InvalidArgumentError(absl::StrCat(entry.address, " is no host:port"));
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_ADDRCONFIG | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(parts->host.c_str(), parts->port.c_str(), &hints, &found);
  const Addresses owner(found);
  if (error != 0) {
    return absl::UnavailableError(absl::StrCat("cannot look up page server ", entry.address, " (",
                                               gai_strerror(error),
                                               "); check the name and this host's resolver"));
  }
  std::vector<ServerAddress> servers;
  for (const addrinfo* at = found; at != nullptr; at = at->ai_next) {
    // A server of both families would else count as two.
    if (at->ai_family != found->ai_family) continue;
    ServerAddress server{ToAddress(at->ai_addr, parts->port), parts->host};
    if (std::find(servers.begin(), servers.end(), server) == servers.end()) {
      servers.push_back(std::move(server));
    }
    if (!entry.is_name) break;
  }
  return servers;
}

}  // namespace faultline
