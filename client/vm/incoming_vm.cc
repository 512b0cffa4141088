// SPDX-License-Identifier: Apache-2.0
#include "client/vm/incoming_vm.h"

#include <absl/strings/str_cat.h>
#include <absl/time/time.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include "client/cli/agent_query.h"
#include "client/cli/format.h"
#include "client/unique_fd.h"
#include "client/vm/preload_attacher.h"
#include "client/vm/qmp_client.h"

namespace faultline {
namespace {

// QEMU makes its machine before it greets.
constexpr absl::Duration kStartTimeout = absl::Minutes(1);
constexpr absl::Duration kAgentTimeout = absl::Seconds(10);

// Whether `word` is QEMU's option `name`, which may have one dash or two.
bool IsOption(absl::string_view word, absl::string_view name) {
  if (word.substr(0, 2) == "--") word.remove_prefix(1);
  return word == name;
}

absl::Status NotStarted(absl::string_view doing, int exit_status) {
  return absl::UnavailableError(absl::StrCat("QEMU ended with status ", exit_status, " while ",
                                             doing, "; what it said stands above"));
}

}  // namespace

absl::StatusOr<QemuCommand> ParseQemuCommand(std::vector<std::string> argv) {
  if (argv.empty()) {
    return absl::InvalidArgumentError(
        "the command that starts QEMU is missing: -- qemu-system-x86_64 ...");
  }
  QemuCommand command;
  bool incoming = false;
  for (size_t i = 1; i < argv.size(); ++i) {
    if (IsOption(argv[i], "-daemonize")) {
      return absl::InvalidArgumentError(
          "QEMU may not have -daemonize here: this command watches over it; run the whole in the "
          "background instead");
    }
    if (IsOption(argv[i], "-loadvm")) {
      return absl::InvalidArgumentError("QEMU may not have -loadvm here: one state is enough");
    }
    if (IsOption(argv[i], "-S")) command.paused = true;
    if (!IsOption(argv[i], "-incoming")) continue;
    incoming = true;
    if (i + 1 == argv.size() || argv[i + 1] != "defer") {
      return absl::InvalidArgumentError("leave QEMU's -incoming away, or make it \"defer\"");
    }
  }
  command.argv = std::move(argv);
  if (!incoming) command.argv.insert(command.argv.end(), {"-incoming", "defer"});
  return command;
}

absl::StatusOr<std::unique_ptr<IncomingVm>> IncomingVm::Start(const QemuCommand& command,
                                                              const VmRecord& saved,
                                                              const GuestMemory* memory) {
  std::unique_ptr<IncomingVm> vm(new IncomingVm);
  vm->paused_ = command.paused;
  absl::StatusOr<std::unique_ptr<MemoryAttacher>> attacher = NewPreloadAttacher(saved.ram_bytes);
  if (!attacher.ok()) return attacher.status();
  vm->attacher_ = *std::move(attacher);
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    return absl::ErrnoToStatus(errno, "cannot make a pair of sockets");
  }
  UniqueFd ours(ends[0]);
  UniqueFd theirs(ends[1]);
  fcntl(theirs.get(), F_SETFD, 0);
  const auto when =
      memory != nullptr ? MemoryAttacher::When::kAtOnce : MemoryAttacher::When::kLater;
  std::vector<std::string> argv = command.argv;
  argv.insert(argv.end(), {"-chardev", absl::StrCat("socket,id=faultline-qmp,fd=", theirs.get()),
                           "-mon", "chardev=faultline-qmp,mode=control"});
  std::vector<std::string> environment;
  absl::Status status = vm->attacher_->Prepare(when, &environment);
  if (!status.ok()) return status;
  absl::StatusOr<ChildProcess> process =
      ChildProcess::Start(argv, {.in = STDIN_FILENO}, environment);
  if (!process.ok()) return process.status();
  vm->process_ = *std::move(process);
  vm->pid_ = vm->process_.pid();
  theirs.reset();
  absl::Status attached;
  if (memory != nullptr) attached = vm->Attach(*memory);
  // Where its RAM was not found, QEMU tells the reason: it has ended, or is another machine.
  auto qmp = QmpClient::Open(std::move(ours), "its own socket", kStartTimeout);
  if (!qmp.ok()) return vm->Explain(qmp.status(), "starting");
  vm->qemu_ = std::make_unique<Qemu>(*std::move(qmp));
  const absl::StatusOr<VmRecord> started = vm->qemu_->Describe();
  if (!started.ok()) return vm->Explain(started.status(), "starting");
  if (status = CheckSameMachine(saved, *started); !status.ok()) return status;
  if (status = vm->qemu_->CheckOnlyQemuUsesRam(); !status.ok()) return status;
  if (!attached.ok()) return attached;
  return vm;
}

IncomingVm::~IncomingVm() {
  if (resumed_ || !process_.running()) return;
  // Not asked first: a QEMU whose main thread waits for a page does not hear it.
  kill(process_.pid(), SIGKILL);
  process_.Wait();
}

absl::Status IncomingVm::Attach(const GuestMemory& memory) {
  agent_socket_ = memory.agent_socket;
  const absl::StatusOr<AttachmentId> attachment = attacher_->Attach(memory);
  if (!attachment.ok()) return Explain(attachment.status(), "handing its RAM over");
  attachment_ = *attachment;
  return absl::OkStatus();
}

absl::Status IncomingVm::LoadDeviceState(absl::string_view state) {
  const absl::Status status = qemu_->LoadDeviceState(state);
  return Explain(
      status,
      "loading the device state (its devices must be those of the saved machine, and its "
      "RAM empty before)");
}

absl::Status IncomingVm::Resume() {
  if (!paused_) {
    if (absl::Status status = Explain(qemu_->Continue(), "resuming"); !status.ok()) return status;
  }
  resumed_ = true;
  return absl::OkStatus();
}

absl::StatusOr<AttachmentStats> IncomingVm::Look() const {
  const absl::StatusOr<std::string> answer =
      QueryAgent(agent_socket_, R"({"query":"attachments"})", kAgentTimeout);
  if (!answer.ok()) return answer.status();
  const absl::StatusOr<std::vector<AttachmentStats>> all = ParseAttachments(*answer);
  if (!all.ok()) return all.status();
  for (const AttachmentStats& stats : *all) {
    if (stats.id == attachment_) return stats;
  }
  return absl::NotFoundError(
      absl::StrCat("the agent has no attachment ", attachment_, " any more"));
}

absl::Status IncomingVm::Wait() {
  const int status = process_.Wait();
  if (status == 0) return absl::OkStatus();
  return absl::UnknownError(absl::StrCat("QEMU ended with status ", status));
}

absl::Status IncomingVm::Explain(absl::Status status, absl::string_view doing) {
  if (status.ok() || !absl::IsUnavailable(status)) return status;
  // Its connection is closed a moment before it has ended.
  constexpr int kLooks = 100;
  for (int i = 0; i < kLooks && process_.running(); ++i) absl::SleepFor(absl::Milliseconds(10));
  return process_.running() ? status : NotStarted(doing, process_.Wait());
}

}  // namespace faultline
