// SPDX-License-Identifier: Apache-2.0
#include "proto/metrics.h"

#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_split.h>
#include <dirent.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <memory>

namespace faultline {
namespace {

constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

bool IsCounter(MetricKind kind) {
  return kind == MetricKind::kCounter || kind == MetricKind::kHistogram;
}

void AddSample(MetricKind kind, const MetricSample& from, MetricSample* to) {
  if (const auto* counts = std::get_if<LatencyCounts>(&from)) {
    std::get<LatencyCounts>(*to) += *counts;
    return;
  }
  const double value = std::get<double>(from);
  double& sum = std::get<double>(*to);
  if (std::isnan(value)) return;
  if (std::isnan(sum)) {
    sum = value;
  } else {
    sum = kind == MetricKind::kMaxGauge ? std::max(sum, value) : sum + value;
  }
}

void RaiseSample(const MetricSample& least, MetricSample* sample) {
  if (const auto* from = std::get_if<LatencyCounts>(&least)) {
    LatencyCounts& counts = std::get<LatencyCounts>(*sample);
    for (size_t i = 0; i < counts.counts.size(); ++i) {
      counts.counts[i] = std::max(counts.counts[i], from->counts[i]);
    }
    counts.sum_seconds = std::max(counts.sum_seconds, from->sum_seconds);
  } else {
    double& value = std::get<double>(*sample);
    value = std::max(value, std::get<double>(least));
  }
}

// Calls `visit` with the kind and the index of each series.
template <typename Visit>
void ForEachSeries(const std::vector<MetricInfo>& infos, Visit visit) {
  size_t index = 0;
  for (const MetricInfo& info : infos) {
    for (size_t i = 0; i < info.values.size(); ++i) visit(info.kind, index++);
  }
}

prometheus::ClientMetric ToClientMetric(MetricKind kind, const MetricSample& sample) {
  prometheus::ClientMetric metric;
  if (const auto* counts = std::get_if<LatencyCounts>(&sample)) {
    uint64_t seen = 0;
    for (size_t i = 0; i < LatencyCounts::kBounds; ++i) {
      seen += counts->counts[i];
      metric.histogram.bucket.push_back({seen, LatencyCounts::BoundSeconds(i)});
    }
    seen += counts->counts.back();
    metric.histogram.bucket.push_back({seen, std::numeric_limits<double>::infinity()});
    metric.histogram.sample_count = seen;
    metric.histogram.sample_sum = counts->sum_seconds;
  } else if (kind == MetricKind::kCounter) {
    metric.counter.value = std::get<double>(sample);
  } else {
    metric.gauge.value = std::get<double>(sample);
  }
  return metric;
}

prometheus::MetricType TypeOf(MetricKind kind) {
  switch (kind) {
    case MetricKind::kCounter:
      return prometheus::MetricType::Counter;
    case MetricKind::kHistogram:
      return prometheus::MetricType::Histogram;
    case MetricKind::kGauge:
    case MetricKind::kMaxGauge:
      break;
  }
  return prometheus::MetricType::Gauge;
}

struct ProcessUsage {
  double cpu_seconds = 0, start_seconds = 0, resident_bytes = 0, threads = 0;
  double open_descriptors = 0, most_descriptors = 0;
};

double CountDescriptors() {
  const std::unique_ptr<DIR, int (*)(DIR*)> folder(opendir("/proc/self/fd"), &closedir);
  if (folder == nullptr) return kUnknown;
  double count = -1;  // its own
  while (const dirent* entry = readdir(folder.get())) count += entry->d_name[0] != '.';
  return count;
}

double Now(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
}

ProcessUsage ReadProcessUsage() {
  std::ifstream file("/proc/self/stat");
  std::string stat;
  std::getline(file, stat);
  // Behind the name of the program, which may hold anything: proc(5), from field 2 on.
  const std::vector<std::string> fields = absl::StrSplit(stat.substr(stat.rfind(')') + 1), ' ');
  const auto field = [&fields](size_t number) {
    double value = 0;
    return number - 2 < fields.size() && absl::SimpleAtod(fields[number - 2], &value) ? value : 0;
  };
  const auto ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  ProcessUsage usage;
  usage.cpu_seconds = (field(14) + field(15)) / ticks;
  usage.threads = field(20);
  usage.start_seconds = Now(CLOCK_REALTIME) - Now(CLOCK_BOOTTIME) + field(22) / ticks;
  usage.resident_bytes = field(24) * static_cast<double>(sysconf(_SC_PAGESIZE));
  usage.open_descriptors = CountDescriptors();
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  usage.most_descriptors = static_cast<double>(limit.rlim_cur);
  return usage;
}

const MetricTable<ProcessUsage>& ProcessTable() {
  using P = ProcessUsage;
  using enum MetricKind;
  static const MetricTable<P> table({
      {"cpu_seconds_total", kCounter, "Processor time that the process has used.", &P::cpu_seconds},
      {"start_time_seconds", kGauge, "When the process was started, in seconds since 1970.",
       &P::start_seconds},
      {"resident_memory_bytes", kGauge,
       "Memory of the process itself; what it serves to others is not in it.", &P::resident_bytes},
      {"threads", kGauge, "Threads of the process.", &P::threads},
      {"open_fds", kGauge, "Open file descriptors of the process.", &P::open_descriptors},
      {"max_fds", kGauge, "File descriptors that the process may have open.", &P::most_descriptors},
  });
  return table;
}

}  // namespace

void AddSamples(const std::vector<MetricInfo>& infos, const MetricSamples& from,
                MetricSamples* to) {
  if (to->empty()) {
    *to = from;
    return;
  }
  ForEachSeries(infos, [&](MetricKind kind, size_t i) { AddSample(kind, from[i], &(*to)[i]); });
}

void KeepAbove(const std::vector<MetricInfo>& infos, const MetricSamples& from, MetricSamples* to) {
  if (from.empty()) return;
  ForEachSeries(infos, [&](MetricKind kind, size_t i) {
    if (IsCounter(kind)) RaiseSample(from[i], &(*to)[i]);
  });
}

void AppendFamilies(absl::string_view prefix, const std::vector<MetricInfo>& infos,
                    const std::vector<LabelledSamples>& sources,
                    std::vector<prometheus::MetricFamily>* families) {
  size_t first = 0;
  for (const MetricInfo& info : infos) {
    prometheus::MetricFamily& family = families->emplace_back();
    family.name = absl::StrCat(prefix, info.name);
    family.help = info.help;
    family.type = TypeOf(info.kind);
    for (const auto& [labels, samples] : sources) {
      for (size_t i = 0; i < info.values.size(); ++i) {
        const MetricSample& sample = samples[first + i];
        const auto* number = std::get_if<double>(&sample);
        if (number != nullptr && std::isnan(*number)) continue;
        prometheus::ClientMetric& metric =
            family.metric.emplace_back(ToClientMetric(info.kind, sample));
        for (const auto& [name, value] : labels) metric.label.push_back({name, value});
        if (!info.label.empty()) metric.label.push_back({info.label, info.values[i]});
      }
    }
    first += info.values.size();
  }
}

std::vector<LabelledSamples> BoundedSeries::Bound(std::vector<Source> live) {
  const auto has_ended = [&live](uint64_t id) {
    const auto at = std::lower_bound(live.begin(), live.end(), id,
                                     [](const Source& one, uint64_t i) { return one.id < i; });
    return at == live.end() || at->id != id;
  };
  std::erase_if(own_, has_ended);
  for (auto other = others_.begin(); other != others_.end();) {
    if (!has_ended(other->first)) {
      ++other;
      continue;
    }
    ForEachSeries(infos_, [&](MetricKind kind, size_t i) {
      if (!IsCounter(kind)) other->second[i] = kUnknown;
    });
    AddSamples(infos_, other->second, &ended_);
    other = others_.erase(other);
  }
  std::vector<LabelledSamples> bounded;
  MetricSamples other = ended_;
  for (Source& source : live) {
    if (!others_.contains(source.id) && (own_.contains(source.id) || own_.size() < limit_)) {
      own_.insert(source.id);
      bounded.push_back(std::move(source.labelled));
      continue;
    }
    if (other_labels_.empty()) {
      for (const auto& [name, value] : source.labelled.labels) {
        other_labels_.emplace_back(name, "other");
      }
    }
    AddSamples(infos_, source.labelled.samples, &other);
    others_[source.id] = std::move(source.labelled.samples);
  }
  if (!other.empty()) bounded.push_back({other_labels_, std::move(other)});
  return bounded;
}

void AppendProcessFamilies(absl::string_view version,
                           std::vector<prometheus::MetricFamily>* families) {
  const MetricTable<ProcessUsage>& table = ProcessTable();
  AppendFamilies("process_", table.infos(), {{{}, table.Sample(ReadProcessUsage())}}, families);
  prometheus::MetricFamily& build = families->emplace_back();
  build.name = "faultline_build_info";
  build.help = "1; its label tells the version of the program.";
  build.type = prometheus::MetricType::Gauge;
  build.metric.emplace_back().gauge.value = 1;
  build.metric.back().label.push_back({"version", std::string(version)});
}

}  // namespace faultline
