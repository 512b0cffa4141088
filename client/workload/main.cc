// SPDX-License-Identifier: Apache-2.0
//
// faultline-workload: a program that does a lot with its memory, and checks all of it. It is to be
// run as it is, under `faultline run`, or under anything else that takes memory away and gives it
// back.
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include <cinttypes>
#include <map>
#include <string>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "client/workload/flags.h"
#include "client/workload/report.h"
#include "client/workload/workload.h"

namespace faultline::workload {
namespace {

constexpr int kFailure = 1;
constexpr int kUsage = 2;

// A page that could not be had, or a number that has led out of the memory.
void OnCrash(int signal, siginfo_t* info, void*) {
  char text[200];
  const int length = snprintf(
      text, sizeof text, "faultline-workload: wrong content: %s at address 0x%" PRIxPTR "\n",
      signal == SIGBUS ? "a page could not be had (SIGBUS)"
                       : "what was read from the memory has led out of it (SIGSEGV)",
      reinterpret_cast<uintptr_t>(info->si_addr));
  _exit(write(STDERR_FILENO, text, static_cast<size_t>(length)) >= 0 ? kFailure : kFailure + 2);
}

void ReportCrashes() {
  struct sigaction action = {};
  action.sa_sigaction = OnCrash;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGSEGV, &action, nullptr);
  sigaction(SIGBUS, &action, nullptr);
}

int Main(int argc, char** argv) {
  CLI::App app("Works on memory of its own, and checks every byte of it.", "faultline-workload");
  WorkloadOptions options;
  AddWorkloadFlags(&app, &options);
  bool as_json = false;
  app.add_option("--output", as_json, "How the result is printed: text or json (in one line)")
      ->transform(
          CLI::CheckedTransformer(std::map<std::string, bool>{{"text", false}, {"json", true}}))
      ->option_text("text|json [text]");
  app.get_formatter()->column_width(34);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kUsage;
  }
  ReportCrashes();
  WorkloadResult result;
  const Failure failure = RunWorkload(options, {}, &result);
  if (!failure.ok()) {
    fprintf(stderr, "faultline-workload: %s\n", failure.message.c_str());
    return failure.code == EINVAL ? kUsage : kFailure;
  }
  const std::string text = as_json ? ResultToJson(result).dump() + "\n" : FormatResult(result);
  if (fputs(text.c_str(), stdout) >= 0 && fflush(stdout) == 0) return 0;
  perror("faultline-workload: cannot write to the standard output");
  return kFailure;
}

}  // namespace
}  // namespace faultline::workload

int main(int argc, char** argv) { return faultline::workload::Main(argc, argv); }
