// SPDX-License-Identifier: Apache-2.0
#include "proto/page_files.h"

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <utility>

#include <nlohmann/json.hpp>

#include "proto/latency_histogram.h"

namespace faultline {

namespace page_files {
extern const std::string_view common_js, style_css;
}

namespace {

constexpr auto kLeastAge = std::chrono::milliseconds(200);
constexpr int kRest = 9;  // times what it has taken

struct Numbers {
  std::function<nlohmann::ordered_json()> collect;
  HttpAnswer answer;
  std::chrono::steady_clock::time_point next;  // when they are collected anew
};

}  // namespace

HttpAnswer JsonAnswer(const nlohmann::ordered_json& json) {
  return {kJsonType, json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace)};
}

nlohmann::ordered_json PageHeader(std::string_view version) {
  nlohmann::ordered_json json;
  json["version"] = version;
  json["time_ms"] = std::chrono::duration_cast<std::chrono::milliseconds>(
                        std::chrono::system_clock::now().time_since_epoch())
                        .count();
  for (size_t i = 0; i < LatencyCounts::kBounds; ++i) {
    json["bounds_seconds"].push_back(LatencyCounts::BoundSeconds(i));
  }
  return json;
}

HttpRoute NumbersRoute(const char* path, std::function<nlohmann::ordered_json()> collect) {
  const auto numbers = std::make_shared<Numbers>(Numbers{std::move(collect), {}, {}});
  return {path, [numbers](const HttpRequest&) {
            const auto now = std::chrono::steady_clock::now();
            if (now >= numbers->next) {
              numbers->answer = JsonAnswer(numbers->collect());
              const auto took = std::chrono::steady_clock::now() - now;
              numbers->next =
                  now + took +
                  std::max<std::chrono::steady_clock::duration>(kLeastAge, took * kRest);
            }
            return numbers->answer;
          }};
}

HttpRoute FileRoute(const char* path, const char* type, std::string_view text) {
  return {path, [type, text](const HttpRequest&) { return HttpAnswer{type, std::string(text)}; }};
}

std::vector<HttpRoute> SharedPageRoutes() {
  return {FileRoute("/style.css", "text/css; charset=utf-8", page_files::style_css),
          FileRoute("/common.js", kScriptType, page_files::common_js)};
}

HttpRoute MetricsRoute(std::function<std::vector<prometheus::MetricFamily>()> collect) {
  return {"/metrics", [collect = std::move(collect)](const HttpRequest&) {
            return HttpAnswer{"text/plain; version=0.0.4; charset=utf-8",
                              prometheus::TextSerializer().Serialize(collect())};
          }};
}

}  // namespace faultline
