// SPDX-License-Identifier: Apache-2.0
//
// What the pages of both daemons have in common: routes of HttpServer.
#ifndef FAULTLINE_PROTO_PAGE_FILES_H_
#define FAULTLINE_PROTO_PAGE_FILES_H_

#include <functional>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "proto/http_server.h"

namespace prometheus {
struct MetricFamily;
}

namespace faultline {

inline constexpr char kHtmlType[] = "text/html; charset=utf-8";
inline constexpr char kScriptType[] = "text/javascript; charset=utf-8";

// A file of a page; `text` is borrowed, for ever.
HttpRoute FileRoute(const char* path, const char* type, std::string_view text);

// /style.css and /common.js.
std::vector<HttpRoute> SharedPageRoutes();

// `json` as it is, but for text that is no UTF-8: that is replaced, not refused.
HttpAnswer JsonAnswer(const nlohmann::ordered_json& json);

// What a page begins with: version, time_ms, and the bounds of all latency histograms.
nlohmann::ordered_json PageHeader(std::string_view version);

// The numbers of a page at `path`, by `collect`, however many look at it: not more often than five
// times a second, and for a tenth of the time at most.
HttpRoute NumbersRoute(const char* path, std::function<nlohmann::ordered_json()> collect);

// /metrics, collected for each scrape.
HttpRoute MetricsRoute(std::function<std::vector<prometheus::MetricFamily>()> collect);

}  // namespace faultline

#endif  // FAULTLINE_PROTO_PAGE_FILES_H_
