// SPDX-License-Identifier: Apache-2.0
//
// faultline churn: does a program that does everything to its memory, from several threads, still
// read every byte right when that memory is paged? Runs faultline-churn, which checks itself,
// against a server and an agent of its own, and counts what the agent went through.
#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "client/bench/local_stack.h"
#include "client/churn/agent_counters.h"
#include "client/churn/churn_report.h"
#include "client/churn/local_agent.h"
#include "client/churn/operation.h"
#include "client/churn/pattern_volume.h"
#include "client/cli/agent_query.h"
#include "client/cli/command.h"
#include "client/cli/flags.h"
#include "client/cli/print.h"
#include "proto/units.h"

namespace faultline {
namespace churn {
namespace {

using Clock = std::chrono::steady_clock;

// Between two looks at the agent's counters.
constexpr auto kLook = std::chrono::milliseconds(100);
constexpr absl::Duration kQueryTimeout = absl::Seconds(20);
constexpr char kVolumeName[] = "churn";

struct CommandOptions {
  // Passed on to faultline-churn.
  uint64_t pages = 16384;
  unsigned threads = 4;
  uint64_t seed = 1;
  std::string memory = "anon";
  uint64_t operations = 0;
  unsigned seconds = 10;
  std::string only;
  uint64_t generation_operations = 0;
  uint64_t storm = 0;
  unsigned hang_after = 10;
  bool no_fork = false, no_drain = false, keep_going = false;
  // What is behind it.
  std::string source = "server";
  int fill_threads = 4;
  std::string fill_mode = "auto";
  PrefetchPolicy prefetch = PrefetchPolicy::kNone;
  bool working_set = false;
  absl::Duration spin = PagerOptions().spin;
  absl::Duration fetch_delay = absl::ZeroDuration();
  double delay_share = 1;
  absl::Duration kill_server_every = absl::ZeroDuration();
  absl::Duration kill_agent_every = absl::ZeroDuration();
  std::optional<uint64_t> wrong_page;
  bool baseline = false, unattached = false;
  std::string directory;
  std::string store;
  unsigned servers = 1;

  // As faultline-churn maps it: whole slots for every thread.
  uint64_t VolumePages() const {
    const uint64_t wanted = std::max(pages, storm + storm / 4);
    const uint64_t share = uint64_t{32} * threads;
    return (wanted + share - 1) / share * share;
  }
};

std::vector<std::string> TargetArguments(const CommandOptions& options) {
  std::vector<std::string> argv = {SiblingProgram("faultline-churn"),
                                   absl::StrCat("--pages=", options.VolumePages()),
                                   absl::StrCat("--threads=", options.threads),
                                   absl::StrCat("--seed=", options.seed),
                                   "--memory=" + options.memory,
                                   absl::StrCat("--ops=", options.operations),
                                   absl::StrCat("--seconds=", options.seconds),
                                   absl::StrCat("--generation-ops=", options.generation_operations),
                                   absl::StrCat("--storm=", options.storm),
                                   absl::StrCat("--hang-after=", options.hang_after)};
  if (!options.only.empty()) argv.push_back("--operations=" + options.only);
  if (options.no_fork) argv.push_back("--no-fork");
  if (options.no_drain) argv.push_back("--no-drain");
  if (options.kill_agent_every > absl::ZeroDuration()) argv.push_back("--agent-may-die");
  if (options.keep_going) argv.push_back("--keep-going");
  return argv;
}

// What the programs behind the target have said last, to the standard error output.
void ShowLogs(const std::string& directory) {
  constexpr std::streamoff kShown = 4000;
  std::set<std::string> names;
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(directory, none)) {
    if (entry.path().extension() == ".log") names.insert(entry.path().filename());
  }
  for (const std::string& name : names) {
    std::ifstream file(directory + "/" + name, std::ios::ate);
    if (!file || file.tellg() == std::streampos(0)) continue;
    file.seekg(std::max<std::streamoff>(0, file.tellg() - kShown));
    std::string cut;
    if (file.tellg() > 0) std::getline(file, cut);
    std::cerr << "--- the end of " << name << ":\n" << file.rdbuf();
  }
}

// What serves the target: server and agent, or an agent inside this process.
struct Behind {
  std::optional<LocalStack> stack;
  std::unique_ptr<LocalAgent> agent;
  std::string socket;
};

Injection InjectionOf(const CommandOptions& options) {
  return {.latency = options.fetch_delay, .share = options.delay_share, .seed = options.seed};
}

absl::Status StartServerAndAgent(const CommandOptions& options, const std::string& directory,
                                 Behind* behind) {
  LocalStackFlags flags;
  flags.store = options.store;
  flags.servers = options.servers;
  flags.agent = {absl::StrCat("--threads=", options.fill_threads),
                 "--fill-mode=" + options.fill_mode,
                 absl::StrCat("--prefetch=", PrefetchPolicyName(options.prefetch)),
                 "--spin=" + absl::FormatDuration(options.spin)};
  if (options.working_set) flags.agent.push_back("--working-set=both");
  if (options.fetch_delay > absl::ZeroDuration()) {
    flags.agent.push_back("--inject=" + FormatInjection(InjectionOf(options)));
  }
  absl::StatusOr<LocalStack> stack = LocalStack::Start(directory, Transport::kTcp, flags);
  if (!stack.ok()) return stack.status();
  const std::string image = directory + "/image";
  std::ofstream file(image, std::ios::binary);
  file << MakePatternVolume(options.seed, options.VolumePages(), options.wrong_page);
  file.close();
  if (!file) return absl::ResourceExhaustedError(absl::StrCat("cannot write ", image));
  auto imported = stack->Faultline({"volume", "import", kVolumeName, image});
  if (!imported.ok()) return imported.status();
  unlink(image.c_str());
  behind->socket = stack->agent_socket();
  behind->stack = *std::move(stack);
  return absl::OkStatus();
}

absl::Status StartAgentInside(const CommandOptions& options, const std::string& directory,
                              Behind* behind) {
  LocalAgentOptions agent;
  agent.socket = directory + "/agent.sock";
  agent.fill_threads = options.fill_threads;
  agent.injection = InjectionOf(options);
  absl::StatusOr<FillMode> mode = ParseFillMode(options.fill_mode);
  if (!mode.ok()) return mode.status();
  agent.pager.fill_mode = *mode;
  agent.pager.spin = options.spin;
  agent.prefetch = options.prefetch;
  absl::StatusOr<std::unique_ptr<LocalAgent>> started = LocalAgent::Start(
      agent, MakePatternVolume(options.seed, options.VolumePages(), options.wrong_page));
  if (!started.ok()) return started.status();
  behind->agent = *std::move(started);
  behind->socket = agent.socket;
  return absl::OkStatus();
}

// What is due some time after it was last done; never where that is zero.
class Repeatedly {
 public:
  explicit Repeatedly(absl::Duration every) : every_(absl::ToChronoNanoseconds(every)) {}
  bool IsDue() const { return every_.count() > 0 && Clock::now() >= next_; }
  void Restart() { next_ = Clock::now() + every_; }

 private:
  const std::chrono::nanoseconds every_;
  Clock::time_point next_;
};

// One run of faultline-churn, from its start to its end. For one thread: the programs that it
// starts end with it.
class TargetRun {
 public:
  // `behind` is borrowed; null where nobody is to be attached.
  TargetRun(const CommandOptions& options, Behind* behind) : options_(options), behind_(behind) {}

  absl::StatusOr<nlohmann::ordered_json> Run();
  const AgentCounters& counters() const { return counters_; }
  uint64_t agent_kills() const { return agent_kills_; }

 private:
  absl::Status Start();
  // Takes what the target has written so far. False at the end of its output.
  bool Read();
  void TakeLine(const std::string& line);
  nlohmann::json LookAtAgent();  // its answer
  absl::Status DoWhatIsDue();

  const CommandOptions& options_;
  Behind* const behind_;
  ChildProcess target_;
  UniqueFd to_target_, from_target_;
  std::string unread_;
  nlohmann::ordered_json result_;
  AgentCounters counters_;
  Clock::time_point next_look_;
  Repeatedly server_kill_{options_.kill_server_every}, agent_kill_{options_.kill_agent_every};
  uint64_t agent_kills_ = 0;
};

absl::Status TargetRun::Start() {
  int in[2], out[2];
  if (pipe2(in, O_CLOEXEC) != 0) return absl::ErrnoToStatus(errno, "pipe");
  const UniqueFd in_read(in[0]);
  to_target_.reset(in[1]);
  if (pipe2(out, O_CLOEXEC) != 0) return absl::ErrnoToStatus(errno, "pipe");
  from_target_.reset(out[0]);
  const UniqueFd out_write(out[1]);
  std::vector<std::string> argv = TargetArguments(options_);
  if (behind_ == nullptr) {
    argv.push_back("--unattached");
  } else {
    argv.insert(argv.end(), {"--announce", "--socket=" + behind_->socket,
                             absl::StrCat("--volume=", kVolumeName)});
  }
  absl::StatusOr<ChildProcess> target =
      ChildProcess::Start(argv, {.in = in_read.get(), .out = out_write.get(), .err = -1});
  if (!target.ok()) return target.status();
  target_ = *std::move(target);
  return absl::OkStatus();
}

bool TargetRun::Read() {
  char bytes[4096];
  const ssize_t n = read(from_target_.get(), bytes, sizeof bytes);
  if (n < 0) return errno == EINTR;
  if (n == 0) return false;
  unread_.append(bytes, static_cast<size_t>(n));
  for (size_t end; (end = unread_.find('\n')) != std::string::npos;) {
    TakeLine(unread_.substr(0, end));
    unread_.erase(0, end + 1);
  }
  return true;
}

void TargetRun::TakeLine(const std::string& line) {
  const auto said = nlohmann::ordered_json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!said.is_object()) return;
  if (said.contains("result")) result_ = said["result"];
  if (said.contains("generation") || said.contains("hang")) {
    const nlohmann::json answer = LookAtAgent();
    if (said.contains("hang")) {
      std::cerr << "--- the agent's attachments:\n" << answer.dump(1) << "\n";
    }
    // The target waits for it; where it is gone meanwhile, its output ends, too.
    if (write(to_target_.get(), "\n", 1) < 0) return;
  }
}

nlohmann::json TargetRun::LookAtAgent() {
  const absl::StatusOr<std::string> answer =
      QueryAgent(behind_->socket, R"({"query":"attachments"})", kQueryTimeout);
  // An agent that does not answer is no finding here: the target will have seen it.
  nlohmann::json parsed;
  if (answer.ok()) {
    parsed = nlohmann::json::parse(*answer, nullptr, /*allow_exceptions=*/false);
    counters_.Look(parsed);
  }
  next_look_ = Clock::now() + kLook;
  return parsed;
}

absl::Status TargetRun::DoWhatIsDue() {
  if (behind_ == nullptr) return absl::OkStatus();
  if (Clock::now() >= next_look_) LookAtAgent();
  absl::Status status;
  if (server_kill_.IsDue()) {
    status = behind_->stack->KillAndRestartServer();
    server_kill_.Restart();
  }
  if (status.ok() && agent_kill_.IsDue()) {
    LookAtAgent();
    status = behind_->stack->KillAndRestartAgent();
    counters_.NoteSuccessor();
    agent_kill_.Restart();
    ++agent_kills_;
  }
  return status;
}

absl::StatusOr<nlohmann::ordered_json> TargetRun::Run() {
  next_look_ = Clock::now() + kLook;
  server_kill_.Restart();
  agent_kill_.Restart();
  absl::Status status = Start();
  if (!status.ok()) return status;
  for (bool open = true; open;) {
    pollfd readable{from_target_.get(), POLLIN, 0};
    const int ready = poll(&readable, 1, static_cast<int>(kLook.count()));
    if (ready > 0) open = Read();
    if (status = DoWhatIsDue(); !status.ok()) return status;
  }
  const int exit_status = target_.Wait();
  if (result_.is_null()) {
    return absl::InternalError(absl::StrCat("faultline-churn ended with status ", exit_status,
                                            " and no result; see what it said above"));
  }
  return result_;
}

std::string Configuration(const CommandOptions& options) {
  std::vector<std::string> parts = {
      absl::StrCat("faultline churn: ", FormatBytes(options.VolumePages() << 12), " of ",
                   options.memory, " memory"),
      absl::StrCat(options.threads, " threads"), absl::StrCat("seed ", options.seed)};
  if (options.storm > 0) parts.push_back(absl::StrCat(options.storm, " single-page discards"));
  if (options.unattached) {
    parts.push_back("nobody attached");
    return absl::StrJoin(parts, ", ");
  }
  parts.push_back(options.source == "memory" ? "source: memory of this process"
                  : options.store.empty()
                      ? "source: page server on RocksDB, TCP loopback"
                      : absl::StrCat("source: ", options.servers, " page server(s) on ",
                                     options.store, ", TCP loopback"));
  parts.push_back(absl::StrCat("fill mode ", options.fill_mode));
  parts.push_back(absl::StrCat(options.fill_threads, " fill threads"));
  parts.push_back(options.no_drain ? "no drain" : "drain");
  parts.push_back(absl::StrCat("prefetch ", PrefetchPolicyName(options.prefetch)));
  if (options.working_set) parts.push_back("working set recorded and replayed");
  if (options.fetch_delay > absl::ZeroDuration()) {
    parts.push_back(absl::StrCat(options.delay_share * 100, " % of fetches held up by ",
                                 absl::FormatDuration(options.fetch_delay)));
  }
  if (options.kill_server_every > absl::ZeroDuration()) {
    parts.push_back(absl::StrCat(options.servers > 1 ? "one server after the other" : "server",
                                 " killed every ",
                                 absl::FormatDuration(options.kill_server_every)));
  }
  if (options.kill_agent_every > absl::ZeroDuration()) {
    parts.push_back(
        absl::StrCat("agent killed every ", absl::FormatDuration(options.kill_agent_every)));
  }
  return absl::StrJoin(parts, ", ");
}

absl::Status CheckOptions(const CommandOptions& options) {
  if (options.wrong_page.has_value() && *options.wrong_page >= options.VolumePages()) {
    return absl::InvalidArgumentError(absl::StrCat("--wrong-page=", *options.wrong_page,
                                                   ": the volume has ", options.VolumePages(),
                                                   " pages"));
  }
  if (options.working_set && options.source != "server") {
    return absl::InvalidArgumentError(
        "--working-set needs a server that keeps it: leave --source=memory out");
  }
  if (options.kill_server_every > absl::ZeroDuration() && options.source != "server") {
    return absl::InvalidArgumentError(
        "--kill-server-every: there is a server only with "
        "--source=server");
  }
  if (options.kill_agent_every > absl::ZeroDuration() &&
      (options.source != "server" || !options.no_fork)) {
    return absl::InvalidArgumentError(
        "--kill-agent-every: needs an agent of its own, so no --source=memory, and --no-fork: the "
        "userfaultfds of forked children die with the agent");
  }
  if (options.servers > 1 && options.store.empty()) {
    return absl::InvalidArgumentError("--servers: several need a --store=rados:POOL/NAMESPACE");
  }
  if (options.operations == 0 && options.seconds == 0 && options.storm == 0) {
    return absl::InvalidArgumentError("--ops and --seconds are both 0: it would never end");
  }
  return absl::OkStatus();
}

absl::Status Churn(const CommandOptions& options, OutputFormat output) {
  absl::Status status = CheckOptions(options);
  if (!status.ok()) return status;
  nlohmann::ordered_json report = {{"configuration", Configuration(options)}};
  if (options.baseline || options.unattached) {
    TargetRun run(options, nullptr);
    absl::StatusOr<nlohmann::ordered_json> result = run.Run();
    if (!result.ok()) return result.status();
    report[options.unattached ? "target" : "baseline"] = *std::move(result);
  }
  if (!options.unattached) {
    absl::StatusOr<TemporaryDirectory> directory = TemporaryDirectory::Create(options.directory);
    if (!directory.ok()) return directory.status();
    Behind behind;
    status = options.source == "memory" ? StartAgentInside(options, directory->path(), &behind)
                                        : StartServerAndAgent(options, directory->path(), &behind);
    if (!status.ok()) return status;
    TargetRun run(options, &behind);
    absl::StatusOr<nlohmann::ordered_json> result = run.Run();
    if (!result.ok() || !Verdict(*result).ok()) ShowLogs(directory->path());
    if (!result.ok()) return result.status();
    report["target"] = *std::move(result);
    report["agent"] = run.counters().Sum();
    if (run.agent_kills() > 0) report["agent"]["kills_total"] = run.agent_kills();
  }
  if (output == OutputFormat::kJson) {
    PrintJson(report);
  } else {
    PrintText(FormatChurnReport(report));
  }
  fflush(stdout);
  return Verdict(report["target"]);
}

void AddTargetFlags(CLI::App* churn, CommandOptions* options) {
  churn->add_option("--pages", options->pages, "Pages of 4 KiB that the volume has, at least")
      ->check(CLI::Range(uint64_t{32}, uint64_t{1} << 26))
      ->capture_default_str();
  churn->add_option("--threads", options->threads, "Threads of the target")
      ->check(CLI::Range(1u, 64u))
      ->capture_default_str();
  churn->add_option("--seconds", options->seconds, "Time; 0: until --ops are done")
      ->capture_default_str();
  churn
      ->add_option("--ops", options->operations,
                   "Operations of all threads together; 0: until the time is up")
      ->capture_default_str();
  churn
      ->add_option("--seed", options->seed,
                   "Of the volume's content and of the operations of each thread. How those of "
                   "several threads interleave does not follow from it")
      ->capture_default_str();
  churn->add_option("--memory", options->memory, "anon, shmem or memfd")
      ->check(CLI::IsMember({"anon", "shmem", "memfd"}))
      ->capture_default_str();
  churn->add_option("--operations", options->only,
                    "Only these, with commas between: " + OperationNames());
  churn->add_flag("--no-fork", options->no_fork, "All but fork and fork-all");
  churn
      ->add_option("--generation-ops", options->generation_operations,
                   "Operations of a thread before it begins again with fresh memory; 0: as many "
                   "as use it up")
      ->capture_default_str();
  churn
      ->add_option("--storm", options->storm,
                   "Instead of all that: discard so many single pages, as a balloon does")
      ->capture_default_str();
  churn
      ->add_option("--hang-after", options->hang_after,
                   "Seconds that an operation may take before it counts as a hang")
      ->check(CLI::Range(1u, 3600u))
      ->capture_default_str();
  churn->add_flag("--keep-going", options->keep_going,
                  "Do not end at the first wrong byte or hang");
}

void AddSourceFlags(CLI::App* churn, CommandOptions* options) {
  churn
      ->add_option("--source", options->source,
                   "server (a page server and an agent of their own) or memory (an agent inside "
                   "this process, whose pages cost nothing to get)")
      ->check(CLI::IsMember({"server", "memory"}))
      ->capture_default_str();
  churn->add_option("--fill-threads", options->fill_threads, "Threads of the agent that fill")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  churn
      ->add_option("--fill-mode", options->fill_mode,
                   "auto, parallel, or serial (one thread does all for an attachment)")
      ->check(CLI::IsMember({"auto", "parallel", "serial"}))
      ->capture_default_str();
  churn->add_flag("!--drain,--no-drain", options->no_drain,
                  "Whether the agent fetches what is left, behind the faults [it does]");
  AddParsed(churn, "--prefetch", "POLICY",
            "The agent's: none, sequential, majority, streams or cluster [none]",
            &ParsePrefetchPolicy, &options->prefetch);
  churn->add_flag("--working-set", options->working_set,
                  "Each generation's faults are recorded by the server and fetched first for the "
                  "next ones");
  AddParsed(churn, "--spin", "DURATION",
            "How long the agent's reader stays awake for what follows; 0 for never [100us]",
            &ParseDuration, &options->spin);
  AddParsed(churn, "--fetch-delay", "DURATION", "Hold fetches up, such as 1ms or 50ms",
            &ParseDuration, &options->fetch_delay);
  churn->add_option("--delay-share", options->delay_share, "Of the fetches, 0 to 1")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  AddParsed(churn, "--kill-server-every", "DURATION",
            "Kill the server (SIGKILL) and start it again, such as 2s", &ParseDuration,
            &options->kill_server_every);
  AddParsed(churn, "--kill-agent-every", "DURATION",
            "Kill the agent (SIGKILL) and start another in its place; with --no-fork",
            &ParseDuration, &options->kill_agent_every);
  churn->add_option("--wrong-page", options->wrong_page,
                    "Give this page of the volume one wrong byte: it must be found");
  churn->add_flag("--baseline", options->baseline,
                  "Before that, the same with nobody attached, to quote its latencies beside");
  churn->add_flag("--unattached", options->unattached, "Only with nobody attached");
  churn->add_option("--store", options->store,
                    "Of the server, as its own --store, empty; its other flags may be in the "
                    "environment [rocksdb: in a directory of its own]");
  churn
      ->add_option("--servers", options->servers,
                   "Of the --store, which must be one that several may have open (rados:); the "
                   "agent has all of them, and --kill-server-every takes one after the other")
      ->check(CLI::Range(1u, 16u))
      ->capture_default_str();
  churn->add_option("--directory", options->directory,
                    "Where the store is put for the time of the churn [/var/tmp]");
}

}  // namespace
}  // namespace churn

void RegisterChurnCommand(CLI::App* app, Session* session) {
  auto options = std::make_shared<churn::CommandOptions>();
  CLI::App* command = app->add_subcommand(
      "churn",
      "Does everything to paged memory that a program can do to memory, from several threads, and "
      "checks every byte. Brings its own server and agent. Fails where a byte was wrong or "
      "something hung");
  churn::AddTargetFlags(command, options.get());
  churn::AddSourceFlags(command, options.get());
  command->footer(
      "Examples:  faultline churn --seconds=600\n"
      "           faultline churn --memory=memfd --kill-server-every=2s --seconds=60\n"
      "           faultline churn --storm=80000 --source=memory --baseline");
  command->callback(
      [=] { session->run = [=] { return churn::Churn(*options, session->output); }; });
}

}  // namespace faultline
