// SPDX-License-Identifier: Apache-2.0
//
// Metrics as both daemons export them: tables say what there is, and everything is read when it is
// scraped, so that counting costs what it did before.
//
//   MetricTable<Source>   one row a metric: name, kind, help, and how to read it from a Source
//   BoundedSeries         the samples of many sources, of which only so many have labels of their
//                         own; the rest is one more, "other"
//   AppendFamilies        samples -> what prometheus-cpp writes out
//
// Names and units are Prometheus': base units, and _total for what only grows.
#ifndef FAULTLINE_PROTO_METRICS_H_
#define FAULTLINE_PROTO_METRICS_H_

#include <absl/strings/string_view.h>
#include <prometheus/metric_family.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "proto/latency_histogram.h"

namespace faultline {

enum class MetricKind {
  kCounter,    // grows, until its source ends
  kGauge,      // several are added up
  kMaxGauge,   // of several, the largest
  kHistogram,  // of seconds
};

// One metric, and the series that it has of one source.
struct MetricInfo {
  std::string name;
  MetricKind kind;
  std::string help;
  std::string label;                // that tells its series apart; empty: there is one
  std::vector<std::string> values;  // of the label; a single empty one where there is none
};

// What one series shows. Not a number: not known, and left out.
using MetricSample = std::variant<double, LatencyCounts>;
// Those of one source, in the order of its table.
using MetricSamples = std::vector<MetricSample>;

using MetricLabels = std::vector<std::pair<std::string, std::string>>;

struct LabelledSamples {
  MetricLabels labels;
  MetricSamples samples;
};

// Adds `from` to `*to`, by the kind of each metric; an empty `*to` becomes the same.
void AddSamples(const std::vector<MetricInfo>& infos, const MetricSamples& from, MetricSamples* to);
// Sets each counter of `*to`, histograms included, that is below that of `from` to that.
void KeepAbove(const std::vector<MetricInfo>& infos, const MetricSamples& from, MetricSamples* to);

// Appends a family for each metric, its name behind `prefix`, with the series of all `sources`:
// also where there are none, so that what can be had is always told.
void AppendFamilies(absl::string_view prefix, const std::vector<MetricInfo>& infos,
                    const std::vector<LabelledSamples>& sources,
                    std::vector<prometheus::MetricFamily>* families);

// Constant after construction.
template <typename Source>
class MetricTable {
 public:
  // Of one series. May be the address of a member of Source.
  using Read = std::function<MetricSample(const Source&)>;
  struct Series {
    const char* value;  // of the label
    Read read;
  };
  struct Row {
    Row(const char* row_name, MetricKind row_kind, const char* row_help, Read read)
        : Row(row_name, row_kind, row_help, "", {{"", std::move(read)}}) {}
    Row(const char* row_name, MetricKind row_kind, const char* row_help, const char* row_label,
        std::vector<Series> row_series)
        : name(row_name),
          kind(row_kind),
          help(row_help),
          label(row_label),
          series(std::move(row_series)) {}

    const char* name;
    MetricKind kind;
    const char* help;
    const char* label;
    std::vector<Series> series;
  };

  explicit MetricTable(const std::vector<Row>& rows) {
    for (const Row& row : rows) {
      MetricInfo& info =
          infos_.emplace_back(MetricInfo{row.name, row.kind, row.help, row.label, {}});
      for (const Series& series : row.series) {
        info.values.emplace_back(series.value);
        reads_.push_back(series.read);
      }
    }
  }

  const std::vector<MetricInfo>& infos() const { return infos_; }

  MetricSamples Sample(const Source& source) const {
    MetricSamples samples;
    samples.reserve(reads_.size());
    for (const Read& read : reads_) samples.push_back(read(source));
    return samples;
  }

 private:
  std::vector<MetricInfo> infos_;
  std::vector<Read> reads_;
};

// Bounds the number of series. Sources get labels of their own, first come first served, while
// there are fewer than `limit` that have; the samples of those that come later are added up under
// "other", where each stays until it ends. What has ended is shown no more, but what it has counted
// stays in "other" if it was there, whose counters never go down. Not thread-safe.
class BoundedSeries {
 public:
  struct Source {
    uint64_t id;  // never used again for another one
    LabelledSamples labelled;
  };

  // `infos` is borrowed.
  BoundedSeries(size_t limit, const std::vector<MetricInfo>* infos)
      : limit_(limit), infos_(*infos) {}

  // `live` are all that have not ended, ordered by id. Its first ones come out as they are. There
  // is an "other", with the names of the labels, if there was ever one in it.
  std::vector<LabelledSamples> Bound(std::vector<Source> live);

 private:
  const size_t limit_;
  const std::vector<MetricInfo>& infos_;
  std::set<uint64_t> own_;                    // who has labels
  std::map<uint64_t, MetricSamples> others_;  // and who has not, as of the last call
  MetricSamples ended_;                       // of those that were in "other": counters only
  MetricLabels other_labels_;
};

// Appends what the kernel knows of this process, by the names that Prometheus' own clients have for
// it, and `version`.
void AppendProcessFamilies(absl::string_view version,
                           std::vector<prometheus::MetricFamily>* families);

}  // namespace faultline

#endif  // FAULTLINE_PROTO_METRICS_H_
