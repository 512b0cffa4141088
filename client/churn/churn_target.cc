// SPDX-License-Identifier: Apache-2.0
//
// faultline-churn: a program whose memory is a volume, and which does to it whatever a program can
// do to memory, from several threads, and checks every byte that it reads. The other half of
// `faultline churn`, which starts an agent for it. It can also be run by hand at any agent, for a
// volume that has the pattern of its seed (pattern_volume.h).
//
// SIGTERM ends it as its time does. Prints one line of JSON. Exit status: 0 all was right, 1 wrong
// bytes or hangs or no attachment.
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include <cinttypes>
#include <cstdlib>
#include <fstream>
#include <map>
#include <optional>
#include <string>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "client/churn/churn.h"
#include "client/churn/pattern_volume.h"

namespace faultline::churn {
namespace {

uint64_t seed_of_crash = 0;

// A page that the agent has poisoned, or that is not where it should be.
void OnCrash(int signal, siginfo_t* info, void*) {
  Complain("faultline-churn: CRASH: signal %d (%s) at %" PRIxPTR ", process %d; seed %" PRIu64,
           signal, signal == SIGBUS ? "SIGBUS, as of a poisoned page" : "SIGSEGV",
           reinterpret_cast<uintptr_t>(info->si_addr), getpid(), seed_of_crash);
}

void ReportCrashes(uint64_t seed) {
  seed_of_crash = seed;
  struct sigaction action = {};
  action.sa_sigaction = OnCrash;
  action.sa_flags = SA_SIGINFO | static_cast<int>(SA_RESETHAND);  // then it ends by the signal
  sigaction(SIGSEGV, &action, nullptr);
  sigaction(SIGBUS, &action, nullptr);
}

volatile sig_atomic_t asked_to_end = 0;
void OnTerm(int) { asked_to_end = 1; }

bool Passed(const nlohmann::ordered_json& result) {
  return result["wrong_bytes_total"] == 0 && result["hangs_total"] == 0 &&
         result["children_failed_total"] == 0;
}

int Print(const nlohmann::ordered_json& result) {
  printf("%s\n", nlohmann::ordered_json{{"result", result}}.dump().c_str());
  fflush(stdout);
  return Passed(result) ? 0 : 1;
}

void AwaitAnswer() {
  fflush(stdout);
  for (char c = 0; c != '\n' && read(STDIN_FILENO, &c, 1) == 1;) {
  }
}

// Whoever started this looks at the attachment, and answers with a line.
void Announce(uint64_t generation, uint64_t attachment) {
  printf("{\"generation\":%" PRIu64 ",\"attachment\":%" PRIu64 "}\n", generation, attachment);
  AwaitAnswer();
}

// While it still hangs.
void AnnounceHang() {
  printf("{\"hang\":true}\n");
  AwaitAnswer();
}

struct Flags {
  ChurnOptions churn;
  std::string operations;
  unsigned seconds = 10, hang_seconds = 10;
  std::string image;  // to be written, and nothing else done
  bool unattached = false, no_fork = false, no_drain = false, keep_going = false, announce = false;
};

void AddFlags(CLI::App& app, Flags* flags) {
  app.add_option("--socket", flags->churn.socket, "Handover socket of the agent");
  app.add_option("--volume", flags->churn.volume, "Volume to map")->default_val("churn");
  app.add_option("--write-image", flags->image,
                 "Only write what the volume must hold into this file, to be imported");
  app.add_flag("--unattached", flags->unattached,
               "Without an agent: the memory is filled beforehand");
  app.add_option("--pages", flags->churn.pages, "Pages of 4 KiB to map")->capture_default_str();
  app.add_option("--threads", flags->churn.threads, "Threads")
      ->check(CLI::Range(1u, kMaxThreads))
      ->capture_default_str();
  app.add_option("--seed", flags->churn.seed, "Of the volume's content and of the operations")
      ->capture_default_str();
  app.add_option("--memory", flags->churn.memory, "anon, shmem or memfd")
      ->transform(
          CLI::CheckedTransformer(std::map<std::string, MemoryKind>{{"anon", MemoryKind::kAnon},
                                                                    {"shmem", MemoryKind::kShmem},
                                                                    {"memfd", MemoryKind::kMemfd}}))
      ->option_text("KIND [anon]");
  app.add_option("--operations", flags->operations, "Only these: " + OperationNames());
  app.add_flag("--no-fork", flags->no_fork, "Without fork and fork-all");
  app.add_option("--ops", flags->churn.operations,
                 "Operations of all threads together; 0: until the time is up")
      ->capture_default_str();
  app.add_option("--seconds", flags->seconds, "Time; 0: until the operations are done")
      ->capture_default_str();
  app.add_option("--generation-ops", flags->churn.generation_operations,
                 "Operations of a thread before it begins again with a fresh attachment; 0: by the "
                 "memory")
      ->capture_default_str();
  app.add_option("--storm", flags->churn.storm,
                 "Instead of all that: so many single pages are discarded")
      ->capture_default_str();
  app.add_flag("--no-drain", flags->no_drain, "The agent fetches only what is touched");
  app.add_flag("--agent-may-die", flags->churn.agent_may_die,
               "Hand over again where an agent that was killed has not answered");
  app.add_flag("--keep-going", flags->keep_going, "Do not end at the first wrong byte or hang");
  app.add_option("--hang-after", flags->hang_seconds, "Seconds after which an operation hangs")
      ->check(CLI::Range(1, 3600))
      ->capture_default_str();
  app.add_flag("--announce", flags->announce,
               "Print a line before an attachment ends, and wait for one on the standard input");
}

int WriteImage(const std::string& path, const ChurnOptions& options) {
  std::ofstream file(path, std::ios::binary);
  file << MakePatternVolume(options.seed, options.pages, std::nullopt);
  file.close();
  if (file) return 0;
  fprintf(stderr, "faultline-churn: cannot write %s\n", path.c_str());
  return 1;
}

int Main(int argc, char** argv) {
  Flags flags;
  CLI::App app("Does whatever can be done to memory to a volume, and checks every byte.",
               "faultline-churn");
  AddFlags(app, &flags);
  CLI11_PARSE(app, argc, argv);
  ChurnOptions& options = flags.churn;
  const uint64_t share = kSlotPages * options.threads;
  options.pages = (options.pages + share - 1) / share * share;
  if (!flags.image.empty()) return WriteImage(flags.image, options);
  options.mix = OperationMix(options.memory);
  std::string error;
  if (!flags.operations.empty() && !options.mix.Restrict(flags.operations, &error)) {
    fprintf(stderr, "faultline-churn: %s\n", error.c_str());
    return 2;
  }
  if (flags.no_fork) {
    options.mix.Drop(Operation::kFork);
    options.mix.Drop(Operation::kForkAll);
  }
  if (flags.unattached != options.socket.empty()) {
    fprintf(stderr, "faultline-churn: one of --socket and --unattached is needed\n");
    return 2;
  }
  options.time = std::chrono::seconds(flags.seconds);
  options.hang_limit = std::chrono::seconds(flags.hang_seconds);
  options.drain = !flags.no_drain;
  if (flags.keep_going) options.on_wrong = Company::OnWrong::kKeepGoing;
  if (flags.announce) options.before_detach = Announce;
  options.is_over = [] { return asked_to_end != 0; };
  signal(SIGTERM, OnTerm);
  ReportCrashes(options.seed);
  nlohmann::ordered_json result;
  const Failure failure = RunChurn(
      options,
      [&](const nlohmann::ordered_json& so_far) {
        if (flags.announce) AnnounceHang();
        _exit(Print(so_far));
      },
      &result);
  if (!failure.ok()) {
    fprintf(stderr, "faultline-churn: %s\n", failure.message.c_str());
    return 1;
  }
  return Print(result);
}

}  // namespace
}  // namespace faultline::churn

int main(int argc, char** argv) { return faultline::churn::Main(argc, argv); }
