// SPDX-License-Identifier: Apache-2.0
#include "client/bench/vm/link_namespace.h"

#include <absl/strings/str_cat.h>
#include <net/if.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cerrno>

#include "client/bench/child_process.h"
#include "client/unique_fd.h"

namespace faultline::bench {
namespace {

absl::Status Unavailable(absl::string_view what, absl::string_view why) {
  return absl::FailedPreconditionError(absl::StrCat("cannot ", what, ": ", why));
}

absl::Status RaiseLoopback() {
  const UniqueFd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  strncpy(request.ifr_name, "lo", sizeof request.ifr_name - 1);
  request.ifr_flags = IFF_UP | IFF_RUNNING | IFF_LOOPBACK;
  if (!fd || ioctl(fd.get(), SIOCSIFFLAGS, &request) != 0) {
    return Unavailable("bring the loopback of a network namespace up", strerror(errno));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status EnterLinkNamespace(uint64_t bytes_per_second) {
  if (unshare(CLONE_NEWNET) != 0) {
    return Unavailable("make a network namespace (it takes root and CONFIG_NET_NS)",
                       strerror(errno));
  }
  if (absl::Status status = RaiseLoopback(); !status.ok()) return status;
  if (bytes_per_second == 0) return absl::OkStatus();
  const absl::StatusOr<std::string> shaped =
      RunProgram({"tc", "qdisc", "add", "dev", "lo", "root", "tbf", "rate",
                  absl::StrCat(bytes_per_second * 8, "bit"), "burst", "256k", "latency", "50ms"});
  if (!shaped.ok()) {
    return Unavailable("limit the link (it takes tc, Debian's iproute2, and CONFIG_NET_SCH_TBF)",
                       shaped.status().message());
  }
  return absl::OkStatus();
}

}  // namespace faultline::bench
