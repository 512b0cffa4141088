// SPDX-License-Identifier: Apache-2.0
//
// faultline completion bash
#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>

#include <algorithm>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "client/cli/command.h"
#include "client/cli/print.h"

namespace faultline {
namespace {

// The words that may follow the command `app`: its subcommands and the flags of it and of those
// above it.
std::string Words(const CLI::App* app) {
  std::vector<std::string> words;
  for (const CLI::App* sub : app->get_subcommands(nullptr)) words.push_back(sub->get_name());
  for (const CLI::App* a = app; a != nullptr; a = a->get_parent()) {
    for (const CLI::Option* option : a->get_options()) {
      for (const std::string& name : option->get_lnames()) {
        const std::string word =
            absl::StrCat("--", name, option->get_items_expected_max() > 0 ? "=" : "");
        if (std::find(words.begin(), words.end(), word) == words.end()) words.push_back(word);
      }
    }
  }
  return absl::StrJoin(words, " ");
}

void AddCases(const CLI::App* app, const std::string& path, std::string* cases) {
  absl::StrAppend(cases, "    \"", path, "\") words=\"", Words(app), "\" ;;\n");
  for (const CLI::App* sub : app->get_subcommands(nullptr)) {
    AddCases(sub, absl::StrCat(path, path.empty() ? "" : " ", sub->get_name()), cases);
  }
}

// Every command takes part, also those that were registered after this one.
std::string BashCompletion(const CLI::App* app) {
  std::string cases;
  std::string commands;
  AddCases(app, "", &cases);
  return absl::StrCat(
      R"(# bash completion of faultline; load it with: source <(faultline completion bash)
_faultline() {
  local path="" next words i word="${COMP_WORDS[COMP_CWORD]}"
  for ((i = 1; i < COMP_CWORD; i++)); do
    next="${path:+$path }${COMP_WORDS[i]}"
    if [[ -n $(_faultline_words "$next") ]]; then path=$next; fi
  done
  words=$(_faultline_words "$path")
  COMPREPLY=($(compgen -W "$words" -- "$word"))
  if [[ $word != -* && ($path == "volume import" || $path == "volume export") ]]; then
    COMPREPLY+=($(compgen -f -- "$word"))
  fi
  if [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *= ]]; then compopt -o nospace; fi
}
_faultline_words() {
  local words=""
  case "$1" in
)",
      cases, R"(  esac
  echo "$words"
}
complete -F _faultline faultline
)");
}

}  // namespace

void RegisterCompletionCommand(CLI::App* app, Session* session) {
  CLI::App* group = app->add_subcommand("completion", "Prints a script for a shell's completion");
  group->require_subcommand(1);
  CLI::App* bash = group->add_subcommand("bash", "Prints the script for bash.");
  bash->footer("Example:  source <(faultline completion bash)");
  bash->callback([app, session] {
    session->run = [app] {
      PrintText(BashCompletion(app));
      return absl::OkStatus();
    };
  });
}

}  // namespace faultline
