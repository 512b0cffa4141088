// SPDX-License-Identifier: Apache-2.0
#include "client/bench/stage.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>

#include <filesystem>
#include <fstream>
#include <utility>

#include "client/bench/process_cpu.h"
#include "proto/units.h"

namespace faultline::bench {
namespace {

constexpr double kMiB = 1 << 20;

std::vector<double> ReadLatencies(const std::string& path) {
  std::error_code error;
  const uintmax_t bytes = std::filesystem::file_size(path, error);
  std::vector<double> micros(error ? 0 : bytes / sizeof(double));
  std::ifstream(path, std::ios::binary)
      .read(reinterpret_cast<char*>(micros.data()),
            static_cast<std::streamsize>(micros.size() * sizeof(double)));
  return micros;
}

absl::StatusOr<nlohmann::json> FindAttachment(const LocalStack& stack, const std::string& socket,
                                              const nlohmann::json& id) {
  absl::StatusOr<std::string> listed =
      stack.Faultline({"attachments", "--socket=" + socket, "--output=json"});
  if (!listed.ok()) return listed.status();
  for (const nlohmann::json& one : nlohmann::json::parse(*listed, nullptr, false)) {
    if (one.is_object() && one.value("id", nlohmann::json()) == id) return one;
  }
  return absl::InternalError("the agent does not know the attachment of faultline-touch");
}

}  // namespace

double TouchResult::mib_per_second() const {
  return pages_per_second() * static_cast<double>(kPageSize) / kMiB;
}

absl::StatusOr<Stage> Stage::Set(const BenchOptions& options,
                                 std::vector<std::string> agent_flags) {
  if (options.stack.link.limits() && options.transport == Transport::kUnix) {
    return absl::InvalidArgumentError("a limited link is one of TCP: leave --transport=unix out");
  }
  absl::StatusOr<TemporaryDirectory> directory = TemporaryDirectory::Create(options.directory);
  if (!directory.ok()) return directory.status();
  LocalStackFlags flags = options.stack;
  if (options.prefetch != "none") agent_flags.push_back("--prefetch=" + options.prefetch);
  flags.agent.insert(flags.agent.begin(), agent_flags.begin(), agent_flags.end());
  absl::StatusOr<LocalStack> stack =
      LocalStack::Start(directory->path(), options.transport, std::move(flags));
  if (!stack.ok()) return stack.status();
  return Stage(options, *std::move(directory), *std::move(stack));
}

PageContent Stage::content(uint64_t seed) const {
  return {options_.codec == "raw" ? PageContent::kRandom : PageContent::kHalf, seed};
}

absl::Status Stage::WriteFile(const std::string& path, const PageContent& content) const {
  std::ofstream file(path, std::ios::binary);
  std::vector<std::byte> page(kPageSize);
  for (uint64_t i = 0; i < options_.pages; ++i) {
    content.Fill(PageIndex(i), page.data());
    file.write(reinterpret_cast<const char*>(page.data()), kPageSize);
  }
  file.close();
  return file ? absl::OkStatus()
              : absl::ResourceExhaustedError(absl::StrCat("cannot write ", path));
}

absl::Status Stage::FillVolume() const {
  const std::string input = path("input");
  if (absl::Status status = WriteFile(input, content()); !status.ok()) return status;
  return stack_.Faultline({"volume", "import", kBenchVolume, input, "--codec=" + options_.codec})
      .status();
}

TouchPlan Stage::RandomTouches(int repetition) const {
  return {.mode = "random",
          .threads = options_.threads,
          .seed = static_cast<uint64_t>(repetition + 2),
          .content = content()};
}

absl::StatusOr<TouchResult> Stage::Touch(const AgentProcess& agent, const TouchPlan& plan) const {
  const std::string latencies = path("latencies");
  const CpuWatch agent_cpu(agent.process.pid()), server_cpu(stack_.server_pid());
  absl::StatusOr<HeldProgram> program = HeldProgram::Start(
      {SiblingProgram("faultline-touch"), "--socket=" + agent.socket,
       absl::StrCat("--volume=", kBenchVolume), absl::StrCat("--size=", options_.pages * kPageSize),
       "--mode=" + plan.mode, absl::StrCat("--touches=", plan.touches),
       absl::StrCat("--threads=", plan.threads), absl::StrCat("--seed=", plan.seed),
       "--latencies=" + latencies,
       plan.content.kind == PageContent::kHalf ? "--verify=half" : "--verify=random",
       absl::StrCat("--content-seed=", plan.content.seed), "--hold"});
  if (!program.ok()) return program.status();
  const nlohmann::json said = nlohmann::json::parse(program->ReadLine(), nullptr, false);
  TouchResult result;
  result.agent_cpu_micros = agent_cpu.Micros();
  result.server_cpu_micros = server_cpu.Micros();
  if (said.is_object()) {
    if (said["wrong_pages"] != 0) {
      return absl::DataLossError(absl::StrCat(said["wrong_pages"].dump(), " of ",
                                              said["verified_pages"].dump(),
                                              " touched pages have wrong bytes"));
    }
    absl::StatusOr<nlohmann::json> attachment =
        FindAttachment(stack_, agent.socket, said["attachment"]);
    if (!attachment.ok()) return attachment.status();
    result.attachment = *std::move(attachment);
  }
  if (const int status = program->Release(); status != 0 || !said.is_object()) {
    return absl::InternalError(absl::StrCat("faultline-touch ended with status ", status));
  }
  result.seconds = said["seconds"];
  result.micros = ReadLatencies(latencies);
  result.begin_ns_sum = said["begin_ns_sum"];
  result.end_ns_sum = said["end_ns_sum"];
  result.pages = result.attachment.value("copied_pages_total", uint64_t{0}) +
                 result.attachment.value("zeroed_pages_total", uint64_t{0});
  return result;
}

std::string Stage::Describe() const {
  std::vector<std::string> parts = {
      absl::StrCat(options_.pages, " pages of 4 KiB (", FormatBytes(options_.pages * kPageSize),
                   options_.codec == "raw" ? ")" : "), half compressible, " + options_.codec),
      TransportName(options_.transport)};
  if (options_.stack.link.limits()) {
    parts.push_back("limited link: " + DescribeLink(options_.stack.link));
  }
  parts.push_back("RocksDB with its data in the page cache");
  parts.push_back("prefetch " + options_.prefetch);
  for (const std::string& flag : options_.stack.agent) parts.push_back("agent " + flag);
  for (const std::string& flag : options_.stack.server) parts.push_back("server " + flag);
  parts.push_back(absl::StrCat(options_.repetitions, " repetitions"));
  return absl::StrJoin(parts, ", ");
}

void AddPageDetails(const TouchResult& result, Report* report) {
  const auto pages = static_cast<double>(result.pages);
  report->AddDetail("filled", "pages/s", result.pages_per_second());
  report->AddDetail("filled", "MiB/s", result.mib_per_second());
  report->AddDetail("agent CPU", "us/page", result.agent_cpu_micros / pages);
  report->AddDetail("server CPU", "us/page", result.server_cpu_micros / pages);
}

}  // namespace faultline::bench
