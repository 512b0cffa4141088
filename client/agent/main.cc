// SPDX-License-Identifier: Apache-2.0
//
// The client agent: serves the page faults of the processes that hand their memory over to it.
#include <absl/strings/str_cat.h>
#include <malloc.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "client/agent/agent_metrics.h"
#include "client/agent/agent_page.h"
#include "client/attach/handover_server.h"
#include "client/evict/policies.h"
#include "client/pager.h"
#include "client/remote/admin_client.h"
#include "client/remote/owned_volumes.h"
#include "client/remote/page_server.h"
#include "client/remote/server_working_sets.h"
#include "client/source/injector.h"
#include "client/timers.h"
#include "proto/daemon.h"
#include "proto/log.h"
#include "proto/service_manager.h"
#include "proto/tls_files_watch.h"

namespace faultline {
namespace {

constexpr int kExitFailed = 1;
constexpr int kExitAtSecondSignal = 3;

constexpr char kNoJournal[] = "none";
// For an agent that is about to end to be gone.
constexpr absl::Duration kJournalPatience = absl::Seconds(5);
// Arenas of malloc: each thread beyond has to share, which costs little here, where hardly anything
// is allocated on the way of a fault, and spares the agent some memory for each of its threads.
constexpr int kMallocArenas = 2;
// Connections that are no attachment: queries, and handovers under way.
constexpr size_t kOtherConnections = 64;
// Of one attachment: connection, userfaultfd, pidfds; with room for a few of its children.
constexpr size_t kDescriptorsPerAttachment = 8;

struct Flags {
  PageServerOptions page_server;
  PagerOptions pager;
  HandoverServerOptions handover;
  std::vector<std::string> allow;
  std::string journal;
  std::string run_directory;
  Injection injection;
  MetricsOptions metrics;
  LogLevel log_level = LogLevel::kInfo;
};

absl::StatusOr<mode_t> ParseMode(absl::string_view text) {
  mode_t mode = 0;
  bool valid = !text.empty() && text.size() <= 4;
  for (const char c : text) {
    valid = valid && c >= '0' && c <= '7';
    mode = mode * 8 + static_cast<mode_t>(c - '0');
  }
  if (valid && mode <= 0777) return mode;
  return absl::InvalidArgumentError(
      absl::StrCat("\"", text, "\" is no file mode; write it in octal, such as 0660"));
}

void AddExperimentFlags(DaemonFlags& add, Flags* flags) {
  add.Add("--trace", &flags->pager.trace_directory, "DIR",
          "Write what happens to the pages of each attachment into a file there, 256 MiB each, for "
          "faultline trace; best on a tmpfs");
  add.AddParsed(
      "--inject", &ParseInjection, &flags->injection, "VALUES", "",
      absl::StrCat(
          "Make the way to the page server worse than it is, for experiments: "
          "KEY=VALUE,... with latency=100us (of each request), jitter=20us (more or less), "
          "share=0.5 (of the requests that both are for), bandwidth=1gbit (each way), "
          "loss=0.01 (share of the requests), timeout=10ms (after which a lost one is "
          "tried again), seed=1; in the first place a profile may stand: ",
          InjectionProfiles()));
}

void AddTlsFlags(DaemonFlags& add, ServerTls* tls) {
  add.Add("--tls-ca", &tls->files.ca, "FILE",
          "Certificate of the page server's authority, PEM; with it TLS is spoken to a host:port. "
          "The files are looked at every 5 s, so they may be replaced");
  add.Add("--tls-cert", &tls->files.certificate, "FILE",
          "This agent's certificate, PEM: its common name is who calls");
  add.Add("--tls-key", &tls->files.key, "FILE", "Private key of --tls-cert, PEM");
  add.Add("--tls-server-name", &tls->server_name, "NAME",
          "Name that the server's certificate is of, where that is not the host");
}

void AddSocketFlags(DaemonFlags& add, Flags* flags) {
  add.Add("--socket", &flags->handover.socket_path, "PATH",
          "Where to listen for processes that hand over their memory");
  add.AddParsed("--socket-mode", &ParseMode, &flags->handover.socket_mode, "MODE", "0660",
                "Octal: who may connect may be served; a service manager's socket keeps its own");
  add.AddParsed("--socket-owner", &ParseSocketOwner, &flags->handover.socket_owner, "USER:GROUP",
                "", "Whose the socket is; also USER or :GROUP");
  add.Add("--allow", &flags->allow, "RULE",
          "Who of them may have which volumes: user:WHO=VOLUME,... or group:WHO=VOLUME,..., where "
          "a VOLUME may end in * for all that begin so; may be given several times. With none, "
          "everybody who may connect may have all");
}

void AddFarFlags(DaemonFlags& add, Flags* flags) {
  HandoverWorkersOptions* const workers = &flags->handover.workers;
  add.AddParsed("--local-memory", &ParseLocalMemory, &workers->local_memory, "SIZE|PERCENT",
                workers->local_memory.ToString(),
                "Budget of an attachment with far memory that asks for none: so much of it, or of "
                "what it has touched, is kept here, and the rest is written to the page server");
  add.AddBytes("--total-local-memory", &workers->total_local_memory,
               "Budget of all far memory together; handovers that ask for more are refused");
  add.Add("--policy", &workers->eviction_policy, "POLICY",
          absl::StrCat("Which pages of far memory leave first, unless a handover says otherwise: ",
                       kEvictionPolicyForm));
  add.Add("--run-directory", &flags->run_directory, "DIR",
          "Of an agent that serves programs that its parent process runs: the socket (agent.sock) "
          "and the journal are in this directory, and once the parent has ended the agent does, "
          "deletes their volumes, and removes the directory");
}

void AddFlags(CLI::App& app, Flags* flags) {
  DaemonFlags add(&app, "FAULTLINE_AGENT_");
  HandoverWorkersOptions& workers = flags->handover.workers;
  add.Add("--server", &flags->page_server.address, "ADDRESS",
          "Address of the page server: host:port or unix:path; it may be down now. Of several that "
          "have the same volumes, those with commas between them, or dns:///host:port for all "
          "addresses of a name: fetches are balanced, and go on where one of them fails");
  AddTlsFlags(add, &flags->page_server.tls);
  AddSocketFlags(add, flags);
  add.Add(
      "--journal", &flags->journal, "DIR",
      "Where attachments are noted, so that an agent that starts there goes on with what one that "
      "was killed has left; best on a tmpfs; none: they are not noted; default: the socket's "
      "path and \".journal\"");
  add.Add("--volume", &workers.volume, "NAME",
          "Volume of handovers that name none, which are those in Firecracker's form");
  add.AddParsed("--prefetch", &ParsePrefetchPolicy, &workers.attachment.prefetch, "POLICY", "none",
                "Pages to fetch before they are touched, unless a handover says otherwise: none, "
                "sequential, majority (the stride that most of the last touches share), streams (a "
                "stride for each of several places) or cluster (majority, or the neighbours)");
  add.AddParsed(
      "--working-set", &ParseWorkingSetUse, &workers.attachment.working_set, "USE", "none",
      "What becomes of the pages that faults ask for, unless a handover says otherwise: "
      "none, record (kept with the volume, added to those of earlier runs), replay (those "
      "are fetched from the beginning) or both");
  add.AddDuration("--replay-wait", &workers.replay_wait,
                  "How long the answer of a handover waits for a working set to be in place; "
                  "0: the program begins at once");
  add.AddSwitch(
      "--drain", &workers.attachment.drain,
      "Fetch everything that is left behind the faults, unless a handover says otherwise");
  add.AddParsed(
      "--fault-policy", &ParseFaultPolicy, &workers.attachment.policy, "POLICY",
      std::string(FaultPolicyName(workers.attachment.policy)),
      "End of a fault that cannot be served: wait (try for ever), poison (the access gets "
      "SIGBUS) or kill (the process gets SIGKILL)");
  add.AddDuration("--fault-deadline", &workers.attachment.fault_deadline,
                  "How long a fault waits for a page server that does not answer, before the fault "
                  "policy decides, such as 60s");
  add.AddParsed("--shared-discard", &ParseSharedDiscard, &workers.attachment.shared_discard,
                "keep|zero", "keep",
                "What a page of shared memory reads that was discarded before it was ever filled; "
                "the kernel does not tell MADV_DONTNEED (keep) from MADV_REMOVE (zero)");
  AddFarFlags(add, flags);
  add.Add("--readers", &flags->pager.readers, "N", "Threads that read page faults")
      ->check(CLI::Range(1, 256));
  add.Add("--retry-threads", &flags->pager.retry_threads, "N",
          "Threads that try again what an address space that was changing has held off")
      ->check(CLI::Range(1, 256));
  add.AddParsed("--fill-mode", &ParseFillMode, &flags->pager.fill_mode, "MODE", "auto",
                "Who fills memory: parallel (all threads at a time), serial (one thread for each "
                "attachment, one page at a time) or auto (parallel from Linux 6.9 on)");
  AddExperimentFlags(add, flags);
  add.Add("--threads", &flags->page_server.threads, "N",
          "Threads that fill memory with pages that nobody waits for yet")
      ->check(CLI::Range(1, 256));
  add.AddDuration("--spin", &flags->pager.spin,
                  "How long a reader of page faults waits awake for the next, or for its page, "
                  "while they follow each other closely; 0 for never");
  add.AddDuration(
      "--handover-timeout", &flags->handover.handover_timeout,
      "How long a process may take for its handover, and the agent for opening its volume");
  add.Add("--max-attachments", &workers.max_attachments, "N",
          "Processes served at the same time; more are refused")
      ->check(CLI::Range(1, 1'000'000));
  add.AddMetrics(&flags->metrics, "attachments");
  add.AddLogLevel(&flags->log_level);
  add.AddConfigFile("volume = \"vm\"");
  app.set_version_flag("--version", "faultline-agent " FAULTLINE_VERSION);
}

void RaiseDescriptorLimit(size_t max_attachments) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  const size_t needed = (max_attachments + kOtherConnections) * kDescriptorsPerAttachment;
  if (limit.rlim_cur < needed) {
    LogWarning(absl::StrCat("at most ", limit.rlim_cur, " open files are allowed, but ",
                            max_attachments, " attachments may need ", needed,
                            "; raise the limit (LimitNOFILE) or lower --max-attachments"));
  }
}

// In the order of construction; each uses those before it.
struct Agent {
  std::unique_ptr<ThreadTimers> delays;
  std::unique_ptr<Injector> injector;        // null: nothing is injected
  std::unique_ptr<TlsFilesWatch> tls_files;  // null: no TLS
  std::unique_ptr<PageServer> page_server;
  std::unique_ptr<ServerWorkingSets> working_sets;
  std::unique_ptr<OwnedVolumes> owned_volumes;
  std::unique_ptr<Journal> journal;  // null: nothing survives
  std::unique_ptr<Pager> pager;
  std::unique_ptr<HandoverServer> handovers;
  std::unique_ptr<AgentMetrics> metrics;
  std::unique_ptr<HttpServer> page;  // null: none is served, nor metrics

  // Leaves no process with memory that turns into zeros. Whether no volume is left, either, that
  // is of use to nobody.
  bool Stop() {
    page.reset();
    handovers->StopHandovers();
    pager->Stop();
    // Only now, so that peers that watch their connection find all decided.
    handovers.reset();
    pager.reset();
    journal.reset();
    injector.reset();
    delays.reset();  // its tasks use the page server
    working_sets.reset();
    // Fetches under way keep their sources, and so the volumes of those.
    page_server.reset();
    const bool all_deleted = owned_volumes->Finish();
    owned_volumes.reset();
    return all_deleted;
  }
};

absl::Status PrepareFar(const Flags& flags, Agent* agent, HandoverWorkersOptions* workers) {
  absl::StatusOr<std::unique_ptr<AdminClient>> admin =
      AdminClient::Create({.address = flags.page_server.address, .tls = flags.page_server.tls});
  if (!admin.ok()) return admin.status();
  PageServer* const server = agent->page_server.get();
  agent->owned_volumes = std::make_unique<OwnedVolumes>(*std::move(admin), server);
  OwnedVolumes* const owned = agent->owned_volumes.get();
  const Injector* const injector = agent->injector.get();
  const auto around = [injector](auto volume) {
    if (volume.ok() && injector != nullptr) *volume = injector->Around(*std::move(volume));
    return volume;
  };
  workers->freeze_volume = [owned, around](absl::string_view volume) {
    return around(owned->Freeze(volume));
  };
  workers->make_volume = [owned, around](absl::string_view prefix, uint64_t size,
                                         absl::Time deadline) {
    return around(owned->Create(prefix, size, deadline));
  };
  workers->new_volume = [owned, around](const NewVolume& volume, absl::Time deadline) {
    return around(owned->CreateKept(volume, deadline));
  };
  workers->delete_volume = [owned](const std::string& volume) { owned->DeleteNow(volume); };
  workers->snapshot_volume = [owned](const std::string& volume, const std::string& snapshot) {
    return owned->Snapshot(volume, snapshot);
  };
  workers->take_over_volume = [owned, around](absl::string_view volume, absl::Time deadline) {
    return around(owned->TakeOver(volume, deadline));
  };
  workers->open_volume_io = [server, around](absl::string_view volume, absl::Time deadline) {
    return around(server->OpenVolumeIo(volume, deadline));
  };
  return MakeEvictionPolicy(workers->eviction_policy, PageCount(1)).status();
}

absl::Status StartPage(const Flags& flags, Agent* agent) {
  if (flags.metrics.address.empty()) return absl::OkStatus();
  agent->metrics = std::make_unique<AgentMetrics>(agent->pager.get(), agent->page_server.get(),
                                                  agent->handovers.get(), agent->tls_files.get(),
                                                  flags.metrics.series_limit);
  absl::StatusOr<std::unique_ptr<HttpServer>> server = HttpServer::Start(
      flags.metrics, AgentPageRoutes({agent->pager.get(), agent->page_server.get(),
                                      agent->metrics.get(), flags.page_server.address}));
  if (!server.ok()) return server.status();
  agent->page = *std::move(server);
  LogPage(*agent->page);
  return absl::OkStatus();
}

absl::Status StartAgent(const Flags& flags, Agent* agent) {
  absl::StatusOr<std::unique_ptr<PageServer>> page_server = PageServer::Create(flags.page_server);
  if (!page_server.ok()) return page_server.status();
  agent->page_server = *std::move(page_server);
  const TlsFiles& tls_files = flags.page_server.tls.files;
  if (tls_files.any()) agent->tls_files = std::make_unique<TlsFilesWatch>(tls_files);
  if (flags.injection.any()) {
    agent->delays = std::make_unique<ThreadTimers>();
    agent->injector = std::make_unique<Injector>(flags.injection, agent->delays.get());
    LogWarning(absl::StrCat("experiment: the way to the page server is made worse: ",
                            FormatInjection(flags.injection)));
  }
  if (flags.journal != kNoJournal) {
    absl::StatusOr<std::unique_ptr<Journal>> journal = Journal::Open(
        flags.journal.empty() ? flags.handover.socket_path + ".journal" : flags.journal,
        kJournalPatience);
    if (!journal.ok()) return journal.status();
    agent->journal = *std::move(journal);
  }
  PagerOptions options = flags.pager;
  options.journal = agent->journal.get();
  options.pollable = agent->page_server->pollable();
  absl::StatusOr<std::unique_ptr<Pager>> pager = Pager::Create(options);
  if (!pager.ok()) return pager.status();
  agent->pager = *std::move(pager);
  agent->working_sets = std::make_unique<ServerWorkingSets>(agent->page_server.get());
  HandoverServerOptions handover = flags.handover;
  absl::StatusOr<VolumePermissions> permissions = VolumePermissions::Parse(flags.allow);
  if (!permissions.ok()) return permissions.status();
  handover.workers.permissions = *std::move(permissions);
  handover.workers.working_sets = agent->working_sets.get();
  if (absl::Status status = PrepareFar(flags, agent, &handover.workers); !status.ok())
    return status;
  absl::StatusOr<std::unique_ptr<HandoverServer>> handovers = HandoverServer::Start(
      handover, agent->pager.get(),
      [server = agent->page_server.get(), injector = agent->injector.get()](
          absl::string_view volume,
          absl::Time deadline) -> absl::StatusOr<std::shared_ptr<PageSource>> {
        absl::StatusOr<std::shared_ptr<PageSource>> source = server->OpenVolume(volume, deadline);
        if (!source.ok() || injector == nullptr) return source;
        return injector->Around(*std::move(source));
      });
  if (!handovers.ok()) return handovers.status();
  agent->handovers = *std::move(handovers);
  // Before anything is taken over, which would end with an agent that cannot start.
  if (absl::Status status = StartPage(flags, agent); !status.ok()) return status;
  if (agent->journal != nullptr) {
    std::vector<std::string> volumes;
    for (LeftAttachment& left : agent->journal->TakeLeft(&volumes)) {
      agent->handovers->Adopt(std::move(left));
    }
    for (const std::string& volume : volumes) agent->owned_volumes->Discard(volume);
  }
  return absl::OkStatus();
}

int RunAgent(const Flags& flags) {
  TuneLibraries();
  const sigset_t signals = BlockSignals();
  RaiseDescriptorLimit(flags.handover.workers.max_attachments);
  const pid_t parent = getppid();
  if (!flags.run_directory.empty()) prctl(PR_SET_PDEATHSIG, SIGTERM);
  Agent agent;
  if (absl::Status status = StartAgent(flags, &agent); !status.ok()) {
    LogError(absl::StrCat("cannot start: ", status.message()));
    return kExitFailed;
  }
  const HandoverWorkersOptions& workers = flags.handover.workers;
  LogInfo(absl::StrCat(
      "ready: handovers at ", flags.handover.socket_path, ", pages from ",
      flags.page_server.address, ", ",
      workers.volume.empty() ? "volumes as named" : absl::StrCat("volume ", workers.volume),
      ", fault policy ", FaultPolicyName(workers.attachment.policy), " after ",
      absl::FormatDuration(workers.attachment.fault_deadline)));
  NotifyServiceManager("READY=1");

  const char* const first = WaitForSignal(signals);
  NotifyServiceManager("STOPPING=1");
  LogInfo(absl::StrCat("got ", first, "; ending all attachments, a second signal ends at once"));
  std::thread([signals] {
    LogError(absl::StrCat("got ", WaitForSignal(signals),
                          " while stopping; exiting. Memory that is not filled turns into zeros in "
                          "processes that keep no userfaultfd of their own, and hangs in those "
                          "that do"));
    _exit(kExitAtSecondSignal);
  }).detach();
  const bool all_deleted = agent.Stop();
  // Where volumes are left, the directory says which.
  if (!flags.run_directory.empty() && getppid() != parent && all_deleted) {
    std::error_code ignored;
    std::filesystem::remove_all(flags.run_directory, ignored);
  }
  LogInfo("stopped");
  return 0;
}

int Main(int argc, char** argv) {
  mallopt(M_ARENA_MAX, kMallocArenas);
  Flags flags;
  flags.page_server.address = "127.0.0.1:7400";
  flags.handover.socket_path = "/run/faultline/agent.sock";
  CLI::App app(
      "The client agent: catches the page faults of processes that hand their memory over to it, "
      "and fills it with pages of a page server.\n"
      "Flags may also be given in the environment, as FAULTLINE_AGENT_ and the flag's name.");
  AddFlags(app, &flags);
  CLI11_PARSE(app, argc, argv);
  if (!flags.run_directory.empty()) {
    flags.handover.socket_path = flags.run_directory + "/agent.sock";
    flags.journal = flags.run_directory + "/journal";
  }
  flags.handover.passed_sockets = TakePassedSockets();
  flags.handover.workers.open_timeout = flags.handover.handover_timeout;
  flags.handover.max_connections = flags.handover.workers.max_attachments + kOtherConnections;
  InitLog("faultline-agent", flags.log_level);
  return RunAgent(flags);
}

}  // namespace
}  // namespace faultline

int main(int argc, char** argv) { return faultline::Main(argc, argv); }
