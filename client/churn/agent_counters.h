// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_CHURN_AGENT_COUNTERS_H_
#define FAULTLINE_CLIENT_CHURN_AGENT_COUNTERS_H_

#include <cstdint>
#include <map>
#include <string>

#include <nlohmann/json.hpp>

namespace faultline::churn {

// The counters of an agent's attachments, over all that there were. Attachments come and go, so
// they are looked at again and again; what one that ends (a forked child) did after the last look
// is missing. Not thread-safe.
class AgentCounters {
 public:
  // Takes an agent's answer to the query for its attachments. False where it is none.
  bool Look(const nlohmann::json& answer);

  // Another agent goes on in the place of the one that was seen: it counts from 0.
  void NoteSuccessor();

  // By the names that the agent gives them, those that end in "_total", summed up; and
  // "attachments_total", "children_total", "fault_max_us".
  nlohmann::ordered_json Sum() const;

 private:
  using Numbers = std::map<std::string, double>;

  static void Add(const Numbers& numbers, Numbers* sum);

  std::map<uint64_t, Numbers> attachments_;  // that there are now, as they were last seen, by id
  Numbers ended_;                            // the sum over those that are gone
};

}  // namespace faultline::churn

#endif  // FAULTLINE_CLIENT_CHURN_AGENT_COUNTERS_H_
