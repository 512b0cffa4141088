// SPDX-License-Identifier: Apache-2.0
#include "client/source/injection.h"

#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>
#include <absl/strings/str_split.h>

#include <set>
#include <utility>
#include <vector>

#include "proto/units.h"

namespace faultline {
namespace {

// What reading 4 KiB costs beyond the processor, as is told of such devices: a load from CXL memory
// takes 200 to 400 ns and 4 KiB at 25 GB/s as much again; a one-sided read over RDMA 3 to 5 us; an
// NVMe drive of flash 60 to 100 us; a round trip through the switches of a data centre with TCP 50
// to 150 us.
constexpr struct {
  absl::string_view name;
  absl::string_view values;
} kProfiles[] = {
    {"cxl", "latency=500ns,bandwidth=200gbit"},
    {"rdma", "latency=4us,jitter=1us,bandwidth=100gbit"},
    {"ssd", "latency=80us,jitter=20us,bandwidth=24gbit"},
    {"lan", "latency=100us,jitter=20us,bandwidth=10gbit"},
};

constexpr absl::Duration kLongest = absl::Hours(1);

constexpr absl::string_view kKeys = "latency, jitter, share, bandwidth, loss, timeout and seed";

absl::StatusOr<absl::Duration> ParseShortDuration(absl::string_view text) {
  absl::StatusOr<absl::Duration> duration = ParseDuration(text);
  if (!duration.ok() || *duration <= kLongest) return duration;
  return absl::InvalidArgumentError(
      absl::StrCat("\"", text, "\" is more than the ", absl::FormatDuration(kLongest), " allowed"));
}

absl::StatusOr<double> ParseShare(absl::string_view text) {
  double share;
  if (absl::SimpleAtod(text, &share) && share >= 0 && share <= 1) return share;
  return absl::InvalidArgumentError(
      absl::StrCat("\"", text, "\" is no share; write a number from 0 to 1, such as 0.01"));
}

absl::StatusOr<uint64_t> ParseSeed(absl::string_view text) {
  uint64_t seed;
  if (absl::SimpleAtoi(text, &seed)) return seed;
  return absl::InvalidArgumentError(
      absl::StrCat("\"", text, "\" is no seed; write a whole number"));
}

template <typename T>
absl::Status Set(absl::StatusOr<T> parsed, T* target) {
  if (!parsed.ok()) return parsed.status();
  *target = *std::move(parsed);
  return absl::OkStatus();
}

absl::Status SetValue(absl::string_view key, absl::string_view value, Injection* injection) {
  if (key == "latency") return Set(ParseShortDuration(value), &injection->latency);
  if (key == "jitter") return Set(ParseShortDuration(value), &injection->jitter);
  if (key == "share") return Set(ParseShare(value), &injection->share);
  if (key == "bandwidth") return Set(ParseBitRate(value), &injection->bytes_per_second);
  if (key == "loss") return Set(ParseShare(value), &injection->loss);
  if (key == "timeout") return Set(ParseShortDuration(value), &injection->timeout);
  if (key == "seed") return Set(ParseSeed(value), &injection->seed);
  return absl::InvalidArgumentError(
      absl::StrCat("\"", key, "\" is nothing that can be injected; known are ", kKeys));
}

// Values without a profile.
absl::Status SetValues(const std::vector<absl::string_view>& values, Injection* injection) {
  std::set<absl::string_view> seen;
  for (const absl::string_view part : values) {
    const std::pair<absl::string_view, absl::string_view> pair =
        absl::StrSplit(part, absl::MaxSplits('=', 1));
    if (pair.first.size() == part.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"", part, "\" is neither KEY=VALUE, with one of ", kKeys,
                       ", nor, in the first place, the name of a profile: ", InjectionProfiles()));
    }
    if (!seen.insert(pair.first).second) {
      return absl::InvalidArgumentError(absl::StrCat("\"", pair.first, "\" is there twice"));
    }
    if (absl::Status status = SetValue(pair.first, pair.second, injection); !status.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(part, ": ", status.message()));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Injection> ParseInjection(absl::string_view text) {
  std::vector<absl::string_view> values = absl::StrSplit(text, ',');
  Injection injection;
  for (const auto& [name, profile] : kProfiles) {
    if (values.front() != name) continue;
    values.erase(values.begin());
    absl::Status status = SetValues(absl::StrSplit(profile, ','), &injection);
    if (!status.ok()) return status;
    break;
  }
  if (absl::Status status = SetValues(values, &injection); !status.ok()) return status;
  if (injection.jitter > injection.latency) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a jitter of ", absl::FormatDuration(injection.jitter), " is more than the latency of ",
        absl::FormatDuration(injection.latency), ": an answer would come before its request"));
  }
  return injection;
}

std::string FormatInjection(const Injection& injection) {
  const Injection defaults;
  std::vector<std::string> values;
  const auto add_duration = [&](absl::string_view key, absl::Duration value, absl::Duration other) {
    if (value != other) values.push_back(absl::StrCat(key, "=", absl::FormatDuration(value)));
  };
  const auto add_number = [&](absl::string_view key, auto value, auto other) {
    if (value != other) values.push_back(absl::StrCat(key, "=", value));
  };
  add_duration("latency", injection.latency, defaults.latency);
  add_duration("jitter", injection.jitter, defaults.jitter);
  add_number("share", injection.share, defaults.share);
  if (injection.bytes_per_second > 0) {
    values.push_back(absl::StrCat("bandwidth=", FormatBitRate(injection.bytes_per_second)));
  }
  add_number("loss", injection.loss, defaults.loss);
  add_duration("timeout", injection.timeout, defaults.timeout);
  add_number("seed", injection.seed, defaults.seed);
  return absl::StrJoin(values, ",");
}

std::string InjectionProfiles() {
  return absl::StrJoin(kProfiles, ", ", [](std::string* out, const auto& profile) {
    absl::StrAppend(out, profile.name, " (", profile.values, ")");
  });
}

}  // namespace faultline
