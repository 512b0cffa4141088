// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_CHURN_CHURN_REPORT_H_
#define FAULTLINE_CLIENT_CHURN_CHURN_REPORT_H_

#include <absl/status/status.h>

#include <string>

#include <nlohmann/json_fwd.hpp>

namespace faultline::churn {

// A churn's outcome for people. `report` is what JSON output is: "configuration", "target" (what
// faultline-churn said), "baseline" (the same, of a run with nobody attached) and "agent" (its
// counters); the last two may be missing.
std::string FormatChurnReport(const nlohmann::ordered_json& report);

// DATA_LOSS or DEADLINE_EXCEEDED, saying what was found, where bytes were wrong or something hung.
absl::Status Verdict(const nlohmann::ordered_json& target);

}  // namespace faultline::churn

#endif  // FAULTLINE_CLIENT_CHURN_CHURN_REPORT_H_
