// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_BENCH_LIMITED_LINK_H_
#define FAULTLINE_CLIENT_BENCH_LIMITED_LINK_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <cstdint>
#include <memory>
#include <string>

namespace faultline::bench {

struct LinkOptions {
  uint64_t bytes_per_second = 0;                // in each direction; 0: no limit
  absl::Duration delay = absl::ZeroDuration();  // one way; a round trip has it twice
  bool limits() const { return bytes_per_second > 0 || delay > absl::ZeroDuration(); }
};

// As "1gbit, 5ms one way".
std::string DescribeLink(const LinkOptions& options);

// A link of limited speed and with a delay between the programs of this machine: a TCP proxy that
// forwards every connection to one address. All connections share its speed, in each direction by
// itself, and take turns, as behind a fair queue; it needs no privilege and no kernel module.
//
// What it limits are the bytes of the TCP streams. A real link of the same speed carries headers
// too (5 % less payload with frames of 1500 bytes), loses frames, and makes TCP find its window;
// here nothing is lost, and a window is no limit. A byte waits at most a few milliseconds in front
// of the link: what does not fit there is held back at the sender. Its one thread passes 5 to 10
// Gbit/s on, depending on the machine: a faster link is not to be had. What a link has really done
// is measured next to every benchmark (tcp_stream).
//
// Thread-safe; has one thread.
class LimitedLink {
 public:
  // To `target`, host:port with a numeric IPv4 host. Listens on return, on a free port of loopback.
  static absl::StatusOr<std::unique_ptr<LimitedLink>> Start(const std::string& target,
                                                            const LinkOptions& options);
  // Breaks all connections.
  virtual ~LimitedLink() = default;

  virtual uint16_t port() const = 0;
  std::string address() const { return "127.0.0.1:" + std::to_string(port()); }
};

}  // namespace faultline::bench

#endif  // FAULTLINE_CLIENT_BENCH_LIMITED_LINK_H_
