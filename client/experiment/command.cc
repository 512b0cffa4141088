// SPDX-License-Identifier: Apache-2.0
#include "client/experiment/command.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>
#include <absl/strings/str_replace.h>
#include <absl/strings/strip.h>

#include <algorithm>
#include <utility>

#include "proto/page.h"

namespace faultline::experiment {
namespace {

constexpr char kProgram[] = "{program}";
constexpr char kWorkload[] = "{workload}";
constexpr char kFaultline[] = "{faultline}";

using Replacements = std::vector<std::pair<std::string, std::string>>;

Replacements ReplacementsOf(const Cell& cell, const Program& program,
                            const Surroundings& surroundings) {
  const std::string local_bytes = absl::StrCat(LocalBytes(cell, program));
  return {{kFaultline, surroundings.faultline},
          {"{server}", surroundings.server},
          {"{stats}", surroundings.stats},
          {"{local}", absl::StrCat(cell.local_percent)},
          {"{local_memory}", cell.local_percent >= 100 ? "100%" : local_bytes},
          {"{local_bytes}", local_bytes},
          {"{policy}", cell.policy},
          {"{prefetch}", cell.prefetch},
          {"{inject}", cell.inject}};
}

bool NamesNothing(const std::string& argument, const Replacements& replacements) {
  return std::any_of(replacements.begin(), replacements.end(), [&](const auto& replacement) {
    return replacement.second.empty() && argument.find(replacement.first) != std::string::npos;
  });
}

}  // namespace

const std::vector<std::string>& DefaultCommand() {
  static const auto* const command = new std::vector<std::string>{kFaultline,
                                                                  "--server={server}",
                                                                  "run",
                                                                  "--local-memory={local_memory}",
                                                                  "--policy={policy}",
                                                                  "--prefetch={prefetch}",
                                                                  "--inject={inject}",
                                                                  "--stats={stats}",
                                                                  "--",
                                                                  kProgram};
  return *command;
}

absl::Status CheckCommand(const std::vector<std::string>& command) {
  const Replacements known = ReplacementsOf({}, {}, {});
  for (const std::string& argument : command) {
    if (argument == kProgram) continue;
    for (size_t at = argument.find('{'); at != std::string::npos; at = argument.find('{', at + 1)) {
      const size_t end = argument.find('}', at);
      const std::string name = argument.substr(at, end == std::string::npos ? end : end - at + 1);
      const bool is_known = std::any_of(known.begin(), known.end(),
                                        [&](const auto& one) { return one.first == name; });
      if (is_known) continue;
      return absl::InvalidArgumentError(absl::StrCat(
          "\"", argument, "\" has ", name, ", which is no placeholder; there are ",
          absl::StrJoin(known, ", ",
                        [](std::string* out, const auto& one) { absl::StrAppend(out, one.first); }),
          ", and ", kProgram, " as an argument of its own"));
    }
  }
  if (std::find(command.begin(), command.end(), kProgram) == command.end()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "no argument is \"", kProgram, "\", which is where the program is put: add it"));
  }
  return absl::OkStatus();
}

uint64_t LocalBytes(const Cell& cell, const Program& program) {
  const auto bytes =
      static_cast<uint64_t>(static_cast<double>(program.size_bytes) * cell.local_percent / 100);
  return bytes / kPageSize * kPageSize;
}

std::vector<std::string> CommandOf(const Spec& spec, const Cell& cell, const Program& program,
                                   const Surroundings& surroundings) {
  std::vector<std::string> executed = program.command;
  for (std::string& argument : executed) {
    if (argument == kWorkload) argument = surroundings.workload;
  }
  if (cell.system != System::kFar) return executed;
  const Replacements replacements = ReplacementsOf(cell, program, surroundings);
  std::vector<std::string> argv;
  for (const std::string& argument : spec.command) {
    if (argument == kProgram) {
      argv.insert(argv.end(), executed.begin(), executed.end());
    } else if (!NamesNothing(argument, replacements)) {
      argv.push_back(absl::StrReplaceAll(argument, replacements));
      if (argument != kFaultline) continue;
      argv.insert(argv.end(), surroundings.tls.begin(), surroundings.tls.end());
    }
  }
  return argv;
}

std::string ShellQuoted(const std::vector<std::string>& argv) {
  constexpr char kPlain[] =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=:,./%@";
  return absl::StrJoin(argv, " ", [&](std::string* out, const std::string& argument) {
    const bool plain = !argument.empty() && argument.find_first_not_of(kPlain) == std::string::npos;
    absl::StrAppend(
        out,
        plain ? argument : absl::StrCat("'", absl::StrReplaceAll(argument, {{"'", "'\\''"}}), "'"));
  });
}

}  // namespace faultline::experiment
