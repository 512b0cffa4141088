// SPDX-License-Identifier: Apache-2.0
//
// Injection: what the way between agent and page server is made to be, for experiments, and how
// people write it.
#ifndef FAULTLINE_CLIENT_SOURCE_INJECTION_H_
#define FAULTLINE_CLIENT_SOURCE_INJECTION_H_

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>
#include <absl/time/time.h>

#include <cstdint>
#include <string>

namespace faultline {

// All of it comes on top of what the way really takes.
struct Injection {
  absl::Duration latency = absl::ZeroDuration();  // of a request and its answer together
  absl::Duration jitter = absl::ZeroDuration();   // at most so much more or less, each as likely
  double share = 1;  // of the requests that latency and jitter are for, 0 to 1
  // Of pages, in each direction by itself; 0: no limit. A fetched page counts whole, a page that is
  // written does unless it is zero.
  uint64_t bytes_per_second = 0;
  double loss = 0;  // share of the requests that are lost, 0 to 1
  // After which one that was lost, or whose answer was, ends with UNAVAILABLE.
  absl::Duration timeout = absl::Milliseconds(10);
  uint64_t seed = 1;  // of everything that is drawn

  // Whether it changes anything.
  bool any() const { return latency > absl::ZeroDuration() || bytes_per_second > 0 || loss > 0; }
};

// Parses "KEY=VALUE,KEY=VALUE...", with the names of the members above as keys but for
// "bandwidth=1gbit". Before them, or instead, there may be the name of a profile, whose values the
// others then replace: "ssd,loss=0.01". INVALID_ARGUMENT, saying what is allowed, for anything
// else.
absl::StatusOr<Injection> ParseInjection(absl::string_view text);

// The form that ParseInjection reads; what has its default is left out.
std::string FormatInjection(const Injection& injection);

// The profiles with their values, for help texts: "cxl (latency=500ns,bandwidth=200gbit), ...".
std::string InjectionProfiles();

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_SOURCE_INJECTION_H_
