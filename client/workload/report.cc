// SPDX-License-Identifier: Apache-2.0
#include "client/workload/report.h"

#include <cinttypes>
#include <cstdio>

#include <nlohmann/json.hpp>

namespace faultline::workload {
namespace {

std::string Text(const char* format, auto... values) {
  char text[256];
  snprintf(text, sizeof text, format, values...);
  return text;
}

double OperationsPerSecond(const WorkloadResult& result) {
  return result.seconds > 0 ? static_cast<double>(result.operations) / result.seconds : 0;
}

// All 64 bits: a number of JSON may have only 53.
std::string ChecksumText(const WorkloadResult& result) {
  return Text("%016" PRIx64, result.checksum);
}

double MiB(uint64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

}  // namespace

nlohmann::ordered_json ResultToJson(const WorkloadResult& result) {
  const WorkloadOptions& options = result.options;
  nlohmann::ordered_json json = {{"workload", options.name},
                                 {"size_bytes", options.size_bytes},
                                 {"seed", options.seed},
                                 {"threads", options.threads}};
  if (options.passes) json["passes"] = *options.passes;
  if (options.write_share) json["write_share"] = *options.write_share;
  if (options.stride_pages) json["stride_pages"] = *options.stride_pages;
  if (options.graph) json["graph"] = *options.graph;
  json.update({{"initialisation_seconds", result.initialisation_seconds},
               {"seconds", result.seconds},
               {"verification_seconds", result.verification_seconds},
               {"operations", result.operations},
               {"operations_per_second", OperationsPerSecond(result)}});
  if (const OperationLatency& latency = result.latency; latency.samples > 0) {
    json["latency_us"] = {{"samples", latency.samples}, {"p50", latency.p50},
                          {"p99", latency.p99},         {"p999", latency.p999},
                          {"max", latency.max},         {"percentiles", latency.percentiles}};
  }
  json.update({{"major_faults", result.major_faults},
               {"minor_faults", result.minor_faults},
               {"cpu_seconds", result.cpu_seconds},
               {"max_rss_bytes", result.max_rss_bytes},
               {"checksum", ChecksumText(result)}});
  return json;
}

std::string FormatResult(const WorkloadResult& result) {
  const WorkloadOptions& options = result.options;
  std::string text =
      Text("%s, %.6g MiB, %u %s, seed %" PRIu64 "\n", options.name.c_str(), MiB(options.size_bytes),
           options.threads, options.threads == 1 ? "thread" : "threads", options.seed);
  text += Text("initialisation  %.3f s\n", result.initialisation_seconds);
  text += Text("measured        %.3f s, %" PRIu64 " operations, %.6g/s, %.3f s of processors\n",
               result.seconds, result.operations, OperationsPerSecond(result), result.cpu_seconds);
  text += Text("verification    %.3f s\n", result.verification_seconds);
  if (const OperationLatency& latency = result.latency; latency.samples > 0) {
    text += Text("operations      p50 %.3g us, p99 %.3g us, p99.9 %.3g us, max %.6g us (%" PRIu64
                 " timed)\n",
                 latency.p50, latency.p99, latency.p999, latency.max, latency.samples);
  }
  text += Text("page faults     %" PRIu64 " major, %" PRIu64 " minor\n", result.major_faults,
               result.minor_faults);
  text += Text("max RSS         %.6g MiB\n", MiB(result.max_rss_bytes));
  return text + "checksum        " + ChecksumText(result) + ", all bytes right\n";
}

}  // namespace faultline::workload
