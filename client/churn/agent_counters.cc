// SPDX-License-Identifier: Apache-2.0
#include "client/churn/agent_counters.h"

#include <algorithm>
#include <utility>

namespace faultline::churn {
namespace {

constexpr char kAttachments[] = "attachments_total", kChildren[] = "children_total";
constexpr char kMaxMicros[] = "fault_max_us";  // the one that is no sum

}  // namespace

void AgentCounters::Add(const Numbers& numbers, Numbers* sum) {
  for (const auto& [name, value] : numbers) {
    double& total = (*sum)[name];
    total = name == kMaxMicros ? std::max(total, value) : total + value;
  }
}

bool AgentCounters::Look(const nlohmann::json& answer) {
  if (!answer.is_object() || !answer.contains("attachments")) return false;
  std::map<uint64_t, Numbers> now;
  for (const nlohmann::json& attachment : answer["attachments"]) {
    const bool child = attachment.value("parent", uint64_t{0}) != 0;
    Numbers& numbers = now[attachment.value("id", uint64_t{0})];
    numbers[child ? kChildren : kAttachments] = 1;
    for (const auto& [name, value] : attachment.items()) {
      if (value.is_number() && (name.ends_with("_total") || name == kMaxMicros)) {
        numbers[name] = value.get<double>();
      }
    }
  }
  for (const auto& [id, numbers] : attachments_) {
    if (!now.contains(id)) Add(numbers, &ended_);
  }
  attachments_ = std::move(now);
  return true;
}

void AgentCounters::NoteSuccessor() {
  for (auto& [id, numbers] : attachments_) {
    // What there was of it stays one attachment, which the successor may have, too.
    Numbers itself;
    for (const char* name : {kAttachments, kChildren}) {
      if (auto node = numbers.extract(name)) itself.insert(std::move(node));
    }
    Add(numbers, &ended_);
    numbers = std::move(itself);
  }
}

nlohmann::ordered_json AgentCounters::Sum() const {
  Numbers sum = ended_;
  for (const auto& [id, numbers] : attachments_) Add(numbers, &sum);
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  for (const auto& [name, value] : sum) {
    if (name.find("_us") != std::string::npos) {
      json[name] = value;
    } else {
      json[name] = static_cast<uint64_t>(value);
    }
  }
  return json;
}

}  // namespace faultline::churn
