// SPDX-License-Identifier: Apache-2.0
//
// What both daemons serve over HTTP: things to read, and nothing that changes anything. Nobody who
// reads is known, so what is served must do no harm where everybody on the machine sees it.
#ifndef FAULTLINE_PROTO_HTTP_SERVER_H_
#define FAULTLINE_PROTO_HTTP_SERVER_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace faultline {

struct MetricsOptions {
  std::string address;  // host:port, port 0: any free one; empty: nothing is served
  // Whether that may be an address that other hosts reach: nothing is asked of who reads there.
  bool beyond_loopback = false;
  // So many attachments or volumes have series of their own.
  size_t series_limit = 32;
};

struct HttpRequest {
  std::string rest;  // of the path, behind that of the route
  std::map<std::string, std::string> query;

  // The number that `name` stands for; `otherwise` where it is not given. INVALID_ARGUMENT, naming
  // it, for what is no number from `least` to `most`.
  absl::StatusOr<uint64_t> Number(const std::string& name, uint64_t otherwise, uint64_t least = 0,
                                  uint64_t most = UINT64_MAX) const;
};

struct HttpAnswer {
  std::string type;  // of the content
  std::string body;
};

inline constexpr char kJsonType[] = "application/json";

// What GET (and HEAD) of a path is answered with. INVALID_ARGUMENT becomes 400, NOT_FOUND 404,
// UNAVAILABLE 503 and every other error 500, each with {"error": message}.
struct HttpRoute {
  using Answer = std::function<absl::StatusOr<HttpAnswer>(const HttpRequest&)>;

  std::string path;  // all paths that begin with it, where it ends in "/" and is longer than that
  Answer answer;     // of each route, called by one thread at a time
};

// Every request is answered on threads with little claim on the processor, in bounded time and
// memory, a few at a time: who connects beyond that waits. Thread-safe.
//
// Pages of other sites cannot read it, also not by a name of theirs that stands for this host: on
// loopback, requests have to name the host as it is listened on, or one of its loopback names.
class HttpServer {
 public:
  // INVALID_ARGUMENT for an address of another form, for a host that is not known, and for one that
  // other hosts reach unless that is allowed; UNAVAILABLE where it cannot be listened on. All name
  // the flag and the address. REQUIRES: `options.address` is not empty.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const MetricsOptions& options,
                                                           std::vector<HttpRoute> routes);
  // No route is called any more from here on.
  virtual ~HttpServer() = default;

  virtual const std::string& url() const = 0;  // with the true port, and "/" at the end
};

}  // namespace faultline

#endif  // FAULTLINE_PROTO_HTTP_SERVER_H_
