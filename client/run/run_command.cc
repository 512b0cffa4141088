// SPDX-License-Identifier: Apache-2.0
//
// faultline run
#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_split.h>
#include <absl/strings/strip.h>
#include <elf.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "client/bench/local_stack.h"
#include "client/cli/agent_query.h"
#include "client/cli/command.h"
#include "client/cli/flags.h"
#include "client/evict/local_memory_limit.h"
#include "client/evict/policies.h"
#include "client/prefetch/prefetcher.h"
#include "client/remote/admin_client.h"
#include "client/run/run_directory.h"
#include "client/run/run_protocol.h"
#include "client/unique_fd.h"
#include "client/vm/sibling_daemon.h"

namespace faultline {
namespace {

using nlohmann::json;

constexpr absl::Duration kLookInterval = absl::Milliseconds(20);
constexpr absl::Duration kAnswerTimeout = absl::Seconds(5);
// Of deleting what is left: a run does not wait longer for a server that is away.
constexpr absl::Duration kAdminTimeout = absl::Seconds(10);

struct RunFlags {
  LocalMemoryLimit local_memory;
  std::string policy = "s3-fifo";
  std::string prefetch = "majority";
  uint64_t least = uint64_t{128} << 10;
  std::string keep, inject, stats, trace;
  bool verbose = false;
  std::vector<std::string> command;
};

// Exit statuses beside kRunRefused, as a shell has them.
constexpr int kNotExecutable = 126, kNoProgram = 127;

// Where the shell would find `name`; empty where it would not.
std::string FindProgram(const std::string& name) {
  if (absl::StrContains(name, '/')) return access(name.c_str(), X_OK) == 0 ? name : "";
  const char* const path = getenv("PATH");
  for (absl::string_view directory :
       absl::StrSplit(path != nullptr ? path : "/usr/bin:/bin", ':')) {
    const std::string file = absl::StrCat(directory.empty() ? "." : directory, "/", name);
    if (access(file.c_str(), X_OK) == 0 && !std::filesystem::is_directory(file)) return file;
  }
  return "";
}

// Whether the dynamic loader starts it, or an interpreter. What is no ELF file, such as a script,
// is for the kernel to judge.
bool IsStatic(const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  Elf64_Ehdr header;
  if (!in.read(reinterpret_cast<char*>(&header), sizeof header)) return false;
  if (memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) return false;
  if (header.e_ident[EI_CLASS] != ELFCLASS64) return true;  // a library of ours does not fit
  for (int i = 0; i < header.e_phnum; ++i) {
    Elf64_Phdr segment;
    in.seekg(static_cast<std::streamoff>(header.e_phoff +
                                         static_cast<uint64_t>(i) * header.e_phentsize));
    if (!in.read(reinterpret_cast<char*>(&segment), sizeof segment)) return false;
    if (segment.p_type == PT_INTERP) return false;
  }
  return true;
}

absl::Status CheckProgram(const std::string& name) {
  const std::string file = FindProgram(name);
  if (file.empty()) {
    return absl::NotFoundError(absl::StrCat(name, ": there is no such program in PATH"));
  }
  if (IsStatic(file)) {
    return absl::FailedPreconditionError(absl::StrCat(
        file,
        " is a static or 32-bit program, into which nothing can be loaded: its memory cannot "
        "be far; link it dynamically"));
  }
  struct stat info;
  if (stat(file.c_str(), &info) == 0 &&
      (((info.st_mode & S_ISUID) != 0 && info.st_uid != geteuid()) ||
       ((info.st_mode & S_ISGID) != 0 && info.st_gid != getegid()))) {
    return absl::FailedPreconditionError(
        absl::StrCat(file,
                     " changes its user or group when it starts, and so loads nothing of "
                     "ours: its memory cannot be far; run it as that user"));
  }
  return absl::OkStatus();
}

// The staged pages, and what else the journal has.
uint64_t JournalBytes(const LocalMemoryLimit& limit) {
  constexpr uint64_t kOthers = uint64_t{64} << 20;
  return (limit.percent == 0 ? limit.bytes / 8 : 0) + kOthers;
}

std::vector<std::string> AgentFlags(const RunFlags& flags, const Session& session,
                                    const std::string& directory) {
  std::vector<std::string> args = {
      absl::StrCat("--server=", session.server),
      absl::StrCat("--run-directory=", directory),
      absl::StrCat("--local-memory=", flags.local_memory.ToString()),
      absl::StrCat("--policy=", flags.policy),
      absl::StrCat("--prefetch=", flags.prefetch),
      "--fault-policy=wait",
  };
  for (std::string& flag : FlagsOf(session.tls)) args.push_back(std::move(flag));
  if (!flags.trace.empty()) args.push_back(absl::StrCat("--trace=", flags.trace));
  if (!flags.inject.empty()) args.push_back(absl::StrCat("--inject=", flags.inject));
  return args;
}

// With what the names of this run's volumes begin: of no other's on any machine.
std::string VolumePrefix() {
  std::random_device random;
  return absl::StrCat("run.", absl::Hex(random()), absl::Hex(random()));
}

void SetEnvironment(const RunFlags& flags, const std::string& library, const std::string& socket,
                    const std::string& volume_prefix) {
  const char* const others = getenv("LD_PRELOAD");
  const std::string preload =
      others != nullptr && *others != '\0' ? absl::StrCat(library, ":", others) : library;
  setenv("LD_PRELOAD", preload.c_str(), 1);
  setenv(kRunSocket, socket.c_str(), 1);
  setenv(kRunVolume, volume_prefix.c_str(), 1);
  setenv(kRunLeast, std::to_string(flags.least).c_str(), 1);
  setenv(kRunFirst, flags.keep.empty() ? "new" : flags.keep.c_str(), 1);
}

// What the agent has last said of each attachment: those of processes that have ended are gone.
class StatsCollector {
 public:
  explicit StatsCollector(std::string socket) : socket_(std::move(socket)) {}

  void Look() {
    const absl::StatusOr<std::string> answer =
        QueryAgent(socket_, R"({"query":"attachments"})", kAnswerTimeout);
    if (!answer.ok()) return;
    const json text = json::parse(*answer, nullptr, /*allow_exceptions=*/false);
    if (!text.is_object() || !text.contains("attachments")) return;
    for (const json& attachment : text["attachments"]) {
      last_[attachment.value("id", uint64_t{0})] = attachment;
    }
  }
  absl::Status WriteTo(const std::string& path) const {
    json all = json::array();
    for (const auto& [id, attachment] : last_) all.push_back(attachment);
    std::ofstream file(path);
    file << json{{"attachments", all}}.dump(2) << "\n";
    file.close();
    if (file) return absl::OkStatus();
    return absl::UnavailableError(absl::StrCat(path, ": cannot be written: ", strerror(errno)));
  }

 private:
  const std::string socket_;
  std::map<uint64_t, json> last_;
};

// Starts the agent again where it has ended, so that the program goes on. One that does not live
// long, again and again, is given up.
class Supervisor {
 public:
  explicit Supervisor(SiblingDaemon* agent) : agent_(agent) {}

  // Looks whether it runs. INTERNAL, with what it has said, where it is given up.
  absl::Status Look() {
    if (agent_->running()) return absl::OkStatus();
    if (last_words_.empty()) last_words_ = agent_->Log();
    const bool short_life = absl::Now() - started_ < kShortLife;
    short_lives_ = short_life ? short_lives_ + 1 : 0;
    if (short_lives_ > kMostShortLives) {
      return absl::InternalError(absl::StrCat("the agent ends again and again:\n", last_words_));
    }
    if (short_lives_ > 0) absl::SleepFor(kBackoff * (1 << short_lives_));
    fprintf(stderr, "faultline run: the agent has ended, another goes on; its last words: %s\n",
            LastLine(last_words_).c_str());
    const absl::Status status = agent_->RestartAgent();
    last_words_ = std::string(status.message());
    started_ = absl::Now();
    return absl::OkStatus();
  }

 private:
  static constexpr absl::Duration kShortLife = absl::Milliseconds(200);
  static constexpr absl::Duration kBackoff = absl::Milliseconds(10);
  static constexpr int kMostShortLives = 8;

  static std::string LastLine(absl::string_view log) {
    const absl::string_view text = absl::StripSuffix(log, "\n");
    const size_t at = text.rfind('\n');
    return std::string(at == text.npos ? text : text.substr(at + 1));
  }

  SiblingDaemon* const agent_;
  absl::Time started_ = absl::Now();
  int short_lives_ = 0;
  std::string last_words_;  // of one that did not come up; empty: it did
};

volatile sig_atomic_t child_pid = 0;
void HandOn(int number) {
  if (child_pid > 0) kill(child_pid, number);
}

absl::StatusOr<int> RunToItsEnd(const RunFlags& flags, const std::string& socket,
                                const std::string& volume_prefix, SiblingDaemon* agent) {
  const absl::StatusOr<std::string> library = SiblingLibrary("libfaultline-run-preload.so");
  if (!library.ok()) return library.status();
  std::vector<char*> argv;
  for (const std::string& arg : flags.command) argv.push_back(const_cast<char*>(arg.c_str()));
  argv.push_back(nullptr);
  // Those that are sent to this process are for the program; a terminal sends them to both.
  struct sigaction hand_on = {};
  hand_on.sa_handler = &HandOn;
  const pid_t pid = fork();
  if (pid < 0) return absl::ErrnoToStatus(errno, "fork");
  if (pid == 0) {
    // Nobody would serve its memory.
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGPIPE, SIG_DFL);
    SetEnvironment(flags, *library, socket, volume_prefix);
    execvp(argv[0], argv.data());
    fprintf(stderr, "faultline run: %s: %s\n", argv[0], strerror(errno));
    _exit(errno == ENOENT ? kNoProgram : kNotExecutable);
  }
  child_pid = pid;
  for (const int number : {SIGTERM, SIGHUP, SIGUSR1, SIGUSR2}) {
    sigaction(number, &hand_on, nullptr);
  }
  signal(SIGINT, SIG_IGN);
  signal(SIGQUIT, SIG_IGN);
  StatsCollector stats(socket);
  Supervisor supervisor(agent);
  int status = 0;
  bool given_up = false;
  for (;;) {
    const bool look = !flags.stats.empty();
    const pid_t ended = waitpid(pid, &status, WNOHANG);
    if (ended == pid) break;
    if (look) stats.Look();
    const absl::Status alive = given_up ? absl::OkStatus() : supervisor.Look();
    if (!alive.ok()) {
      given_up = true;
      fprintf(stderr, "faultline run: the program is killed, as nobody serves its memory: %s\n",
              std::string(alive.message()).c_str());
      kill(pid, SIGKILL);
    }
    absl::SleepFor(kLookInterval);
  }
  if (!flags.stats.empty()) {
    if (absl::Status written = stats.WriteTo(flags.stats); !written.ok()) return written;
  }
  if (flags.verbose) fprintf(stderr, "%s", agent->Log().c_str());
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

absl::Status DeleteVolumes(const Session& session, const std::string& prefix) {
  absl::StatusOr<std::unique_ptr<AdminClient>> admin = AdminClient::Create(
      {.address = session.server, .tls = session.tls, .call_timeout = kAdminTimeout});
  if (!admin.ok()) return admin.status();
  const absl::StatusOr<std::vector<rpc::Volume>> volumes = (*admin)->ListVolumes();
  if (!volumes.ok()) return volumes.status();
  for (const rpc::Volume& volume : *volumes) {
    if (!absl::StartsWith(volume.name(), prefix + ".")) continue;
    const absl::Status deleted = (*admin)->DeleteVolume(volume.name());
    if (!deleted.ok() && !absl::IsNotFound(deleted)) return deleted;
  }
  return absl::OkStatus();
}

absl::Status MakeKept(const RunFlags& flags, const Session& session) {
  if (flags.keep.empty()) return absl::OkStatus();
  absl::StatusOr<std::unique_ptr<AdminClient>> admin =
      AdminClient::Create({.address = session.server, .tls = session.tls});
  if (!admin.ok()) return admin.status();
  rpc::CreateVolumeRequest request;
  request.set_name(flags.keep);
  request.set_size_bytes(kRunVolumeBytes);
  return (*admin)->CreateVolume(request).status();
}

absl::Status Run(const RunFlags& flags, const Session& session, int* exit_status) {
  if (flags.local_memory.percent == 0 && flags.local_memory.bytes < (uint64_t{1} << 20)) {
    return absl::InvalidArgumentError(
        "--local-memory: less than 1MiB is too little for anything to run in");
  }
  if (absl::Status status = CheckProgram(flags.command[0]); !status.ok()) return status;
  if (absl::Status status = MakeKept(flags, session); !status.ok()) return status;
  // Volumes are listed to, and deleted for, whoever has made them.
  const std::string& certificate = session.tls.files.certificate;
  const std::string made_as =
      certificate.empty() ? session.server : absl::StrCat(session.server, " as ", certificate);
  CollectKilledRuns(
      made_as, [&session](const std::string& prefix) { return DeleteVolumes(session, prefix); });
  const std::string volume_prefix = VolumePrefix();
  const absl::StatusOr<std::unique_ptr<RunDirectory>> directory =
      RunDirectory::Create(JournalBytes(flags.local_memory), made_as, volume_prefix);
  if (!directory.ok()) return directory.status();
  const std::string socket = (*directory)->path() + "/agent.sock";
  absl::StatusOr<SiblingDaemon> agent =
      SiblingDaemon::StartAgent(AgentFlags(flags, session, (*directory)->path()), socket);
  if (!agent.ok()) return agent.status();
  absl::StatusOr<int> status = RunToItsEnd(flags, socket, volume_prefix, &*agent);
  *agent = SiblingDaemon();  // ends it
  // An agent that was killed may have left one, and so may one that the server did not answer.
  if (absl::Status left = DeleteVolumes(session, volume_prefix); !left.ok()) {
    (*directory)->Leave();
    fprintf(stderr,
            "faultline run: volumes whose names begin with %s may be left on the server; the next "
            "run here deletes them: %s\n",
            volume_prefix.c_str(), std::string(left.message()).c_str());
  }
  if (!status.ok()) return status.status();
  *exit_status = *status;
  return absl::OkStatus();
}

}  // namespace

void RegisterRunCommand(CLI::App* app, Session* session) {
  CLI::App* run = app->add_subcommand(
      "run",
      "Runs an unmodified program in less memory than it needs: its large anonymous mappings are "
      "far memory, of which so much is kept here, and the rest by the page server. Its exit status "
      "is this command's (128 and the number of the signal that ended it; 125: it could not have "
      "far memory; 127: there is no such program).");
  auto flags = std::make_shared<RunFlags>();
  AddParsed(run, "--local-memory", "SIZE|PERCENT [256MiB]",
            "How much of its far memory each process may have here, or which part of what it has "
            "touched of it",
            &ParseLocalMemory, &flags->local_memory);
  run->add_option("--policy", flags->policy, "Which pages leave first")
      ->option_text(absl::StrCat(kEvictionPolicyForm, " [s3-fifo]"));
  run->add_option("--prefetch", flags->prefetch, "Pages to fetch before they are touched")
      ->option_text("none|sequential|majority|streams|cluster [majority]");
  AddParsed(run, "--least", "SIZE [128KiB]", "Smaller mappings stay ordinary memory",
            &ParseWholePages, &flags->least);
  run->add_option("--keep", flags->keep,
                  "Leave what the program itself has evicted as a volume of this name")
      ->option_text("NAME");
  run->add_option("--inject", flags->inject,
                  "What the way to the server does to pages; see "
                  "faultline-agent --help")
      ->option_text("SPEC");
  run->add_option("--stats", flags->stats,
                  "Where to write the last counters of each process, as JSON")
      ->option_text("FILE");
  run->add_option("--trace", flags->trace,
                  "Directory for what happens to the pages of each process; see faultline trace")
      ->option_text("DIR");
  run->add_flag("--verbose", flags->verbose, "Show the agent's log in the end");
  run->add_option("command", flags->command, "The program and its arguments, after --")
      ->option_text("CMD ARGS...")
      ->required();
  run->footer("Example:  faultline run --local-memory=256MiB -- sort -S 1G words.txt");
  run->callback([flags, session] {
    session->run = [flags, session] {
      int exit_status = 0;
      const absl::Status status = Run(*flags, *session, &exit_status);
      if (!status.ok()) {
        fprintf(stderr, "faultline run: %s\n", std::string(status.message()).c_str());
        exit_status = absl::IsNotFound(status) ? kNoProgram : kRunRefused;
      }
      fflush(nullptr);
      if (exit_status != 0) _exit(exit_status);
      return absl::OkStatus();
    };
  });
}

}  // namespace faultline
