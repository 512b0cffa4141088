// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_VM_VM_OUTPUT_H_
#define FAULTLINE_CLIENT_VM_VM_OUTPUT_H_

#include <absl/strings/string_view.h>
#include <absl/time/clock.h>
#include <absl/time/time.h>

#include <cstdio>
#include <string>

#include <nlohmann/json.hpp>

#include "client/cli/command.h"

namespace faultline {

// Says what happens to a machine, on the standard error: the standard output may be the guest's
// console. One line for each thing; with --output=json each is an object whose "event" is what it
// is, and "time" when, in seconds since the epoch. Not thread-safe.
class VmOutput {
 public:
  VmOutput(std::string command, OutputFormat format)
      : command_(std::move(command)), format_(format) {}

  void Say(const std::string& event, absl::string_view text,
           const nlohmann::ordered_json& fields = nlohmann::ordered_json::object()) const {
    std::string line;
    if (format_ == OutputFormat::kJson) {
      nlohmann::ordered_json json = {
          {"event", event}, {"time", absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch())}};
      json.update(fields);
      line = json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
    } else {
      line = command_ + ": " + std::string(text);
    }
    line += '\n';
    fwrite(line.data(), 1, line.size(), stderr);
  }

 private:
  const std::string command_;  // "vm restore"
  const OutputFormat format_;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_VM_VM_OUTPUT_H_
