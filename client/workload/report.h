// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_WORKLOAD_REPORT_H_
#define FAULTLINE_CLIENT_WORKLOAD_REPORT_H_

#include <string>

#include <nlohmann/json_fwd.hpp>

#include "client/workload/workload.h"

namespace faultline::workload {

// Of a run in which every byte was right. Pure.
nlohmann::ordered_json ResultToJson(const WorkloadResult& result);
std::string FormatResult(const WorkloadResult& result);

}  // namespace faultline::workload

#endif  // FAULTLINE_CLIENT_WORKLOAD_REPORT_H_
