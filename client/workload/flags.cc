// SPDX-License-Identifier: Apache-2.0
#include "client/workload/flags.h"

#include <charconv>
#include <cstdio>
#include <string_view>
#include <system_error>

#include <CLI/CLI.hpp>

namespace faultline::workload {
namespace {

// The forms of proto/units.h, which needs abseil: to a number of bytes.
std::string ReplaceSize(std::string& text) {
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string_view unit(end, static_cast<size_t>(text.data() + text.size() - end));
  constexpr std::string_view kLetters = "KMGT";
  int shift = 0;
  bool known = error == std::errc() && end != text.data();
  if (!unit.empty()) {
    const size_t letter = kLetters.find(unit[0]);
    known =
        known && letter != std::string_view::npos && (unit.size() == 1 || unit.substr(1) == "iB");
    shift = known ? 10 * static_cast<int>(letter + 1) : 0;
  }
  if (!known || number > ~uint64_t{0} >> shift) {
    return "\"" + text +
           "\" is no size: give a number of bytes such as 4096, 64KiB, 256MiB or 1GiB";
  }
  text = std::to_string(number << shift);
  return "";
}

std::string Footer() {
  std::string text = "The workloads:\n";
  for (const std::string& name : WorkloadNames()) {
    text += "  " + name + std::string(17 - name.size(), ' ') + WorkloadDescription(name) + "\n";
  }
  return text +
         "Exit status: 0 every byte was right, 1 a byte was wrong or there was no memory, 2 wrong "
         "usage.";
}

std::string Shortest(double number) {
  char text[32];
  snprintf(text, sizeof text, "%.17g", number);
  return text;
}

}  // namespace

void AddWorkloadFlags(CLI::App* app, WorkloadOptions* options) {
  app->add_option("name", options->name, "What is done; see below")
      ->required()
      ->check(CLI::IsMember(WorkloadNames()))
      ->option_text("NAME REQUIRED");
  app->add_option("--size", options->size_bytes,
                  "Bytes of memory, such as 256MiB; of allocator-churn: at most")
      ->transform(CLI::Validator(ReplaceSize, ""))
      ->option_text("SIZE [256MiB]");
  app->add_option("--operations", options->operations, "How many, of all threads together")
      ->option_text("N [by the workload]");
  app->add_option("--passes", options->passes, "The same in passes over all the memory")
      ->option_text("N [by the workload]");
  app->add_option("--seed", options->seed, "Of what the memory holds and what is done with it")
      ->capture_default_str();
  app->add_option("--threads", options->threads, "Threads that share the operations")
      ->capture_default_str();
  app->add_option("--write-share", options->write_share, "Of the operations, 0 to 1")
      ->option_text("SHARE [0.5]");
  app->add_option("--stride", options->stride_pages, "Of stride, in pages")->option_text("N [7]");
  app->add_option("--graph", options->graph, "Of bfs: kronecker or uniform")
      ->option_text("KIND [kronecker]");
  app->add_flag("--pin-cpu", options->pin_cpu,
                "Thread N runs on the Nth processor that it may have");
  app->footer(Footer());
}

std::vector<std::string> WorkloadArguments(const WorkloadOptions& options) {
  std::vector<std::string> arguments = {
      options.name, "--size=" + std::to_string(options.size_bytes),
      "--seed=" + std::to_string(options.seed), "--threads=" + std::to_string(options.threads)};
  const auto add = [&](const char* name, const std::optional<uint64_t>& value) {
    if (value) arguments.push_back(name + std::to_string(*value));
  };
  add("--operations=", options.operations);
  add("--passes=", options.passes);
  add("--stride=", options.stride_pages);
  if (options.write_share) {
    arguments.push_back("--write-share=" + Shortest(*options.write_share));
  }
  if (options.graph) arguments.push_back("--graph=" + *options.graph);
  if (options.pin_cpu) arguments.emplace_back("--pin-cpu");
  return arguments;
}

}  // namespace faultline::workload
