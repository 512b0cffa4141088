// SPDX-License-Identifier: Apache-2.0
#include "client/churn/churn_report.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>

#include <cstdint>

#include <nlohmann/json.hpp>

namespace faultline::churn {
namespace {

using nlohmann::ordered_json;

uint64_t Count(const ordered_json& object, const char* name) {
  return object.value(name, uint64_t{0});
}

const ordered_json* FindOperation(const ordered_json& target, const std::string& name) {
  for (const ordered_json& operation : target["operations"]) {
    if (operation["name"] == name) return &operation;
  }
  return nullptr;
}

std::string Latencies(const ordered_json* operation) {
  if (operation == nullptr) return absl::StrFormat("%10s %10s %10s", "-", "-", "-");
  return absl::StrFormat("%10.1f %10.1f %10.1f", operation->value("p50_us", 0.0),
                         operation->value("p99_us", 0.0), operation->value("max_us", 0.0));
}

std::string FormatOperations(const ordered_json& report) {
  const ordered_json& target = report["target"];
  const bool beside = report.contains("baseline");
  std::string text = absl::StrFormat("%-13s %9s %8s   %10s %10s %10s", "operation", "done",
                                     "refused", "p50 us", "p99 us", "max us");
  if (beside) {
    absl::StrAppendFormat(&text, "   %10s %10s %10s  with nobody attached", "p50 us", "p99 us",
                          "max us");
  }
  text += '\n';
  for (const ordered_json& operation : target["operations"]) {
    const auto name = operation["name"].get<std::string>();
    absl::StrAppendFormat(&text, "%-13s %9d %8d   %s", name, Count(operation, "done_total"),
                          Count(operation, "refused_total"), Latencies(&operation));
    if (beside) {
      absl::StrAppend(&text, "   ", Latencies(FindOperation(report["baseline"], name)));
    }
    text += '\n';
  }
  return text;
}

std::string FormatTarget(const ordered_json& target) {
  return absl::StrFormat(
      "operations    %d in %.1f s (%.0f/s), %d in forked children; %d generations of memory\n"
      "checked       %d pages, %d bytes (%d pages in children)\n"
      "children      %d, %d killed, %d executed another program, %d forked in the middle of "
      "another "
      "thread's move, %d ended badly\n"
      "worst         %s, %.1f us\n"
      "WRONG BYTES   %d in %d pages\n"
      "HANGS         %d\n",
      Count(target, "operations_total"), target.value("seconds", 0.0),
      target.value("operations_per_second", 0.0), Count(target, "child_operations_total"),
      Count(target, "generations_total"), Count(target, "checked_pages_total"),
      Count(target, "checked_bytes_total"), Count(target, "child_checked_pages_total"),
      Count(target, "children_total"), Count(target, "children_killed_total"),
      Count(target, "children_executed_total"), Count(target, "children_raced_total"),
      Count(target, "children_failed_total"), target.value("worst_operation", "-"),
      target.value("worst_us", 0.0), Count(target, "wrong_bytes_total"),
      Count(target, "wrong_pages_total"), Count(target, "hangs_total"));
}

}  // namespace

std::string FormatChurnReport(const ordered_json& report) {
  std::string text = absl::StrCat(report["configuration"].get<std::string>(), "\n\n",
                                  FormatOperations(report), "\n", FormatTarget(report["target"]));
  if (!report.contains("agent")) return text;
  text += "\nagent\n";
  for (const auto& [name, value] : report["agent"].items()) {
    absl::StrAppendFormat(&text, "  %-26s %.0f\n", name, value.get<double>());
  }
  return text;
}

absl::Status Verdict(const ordered_json& target) {
  const uint64_t wrong = Count(target, "wrong_bytes_total");
  if (wrong > 0) {
    return absl::DataLossError(absl::StrCat(wrong, " bytes in ", Count(target, "wrong_pages_total"),
                                            " pages were wrong; the reports above say where, seed ",
                                            Count(target, "seed")));
  }
  const uint64_t hangs = Count(target, "hangs_total");
  if (hangs > 0) {
    return absl::DeadlineExceededError(absl::StrCat(
        hangs, " operations hung; the reports above say where, seed ", Count(target, "seed")));
  }
  const uint64_t failed = Count(target, "children_failed_total");
  if (failed > 0) {
    return absl::InternalError(absl::StrCat(failed,
                                            " forked children ended by a signal that nobody sent "
                                            "on purpose; the reports above say which, seed ",
                                            Count(target, "seed")));
  }
  return absl::OkStatus();
}

}  // namespace faultline::churn
