// SPDX-License-Identifier: Apache-2.0
#include "client/bench/vm/guest.h"

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_split.h>
#include <absl/time/clock.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <utility>

namespace faultline::bench {
namespace {

constexpr absl::Duration kConnectPatience = absl::Seconds(30);
constexpr absl::Duration kQmpTimeout = absl::Minutes(2);

bool IsInPath(const std::string& program) {
  if (program.find('/') != program.npos) return access(program.c_str(), X_OK) == 0;
  const char* path = getenv("PATH");
  for (const auto directory : absl::StrSplit(path == nullptr ? "" : path, ':')) {
    if (access(absl::StrCat(directory, "/", program).c_str(), X_OK) == 0) return true;
  }
  return false;
}

std::optional<GuestTick> ParseTick(const StampedLine& line) {
  GuestTick tick{.at = line.at};
  unsigned long number, ms, pass, bad;
  if (sscanf(line.text.c_str(), "tick %lu ms %lu pass %lu bad %lu", &number, &ms, &pass, &bad) != 4)
    return std::nullopt;
  tick.number = number;
  tick.pass = pass;
  tick.bad = bad;
  return tick;
}

}  // namespace

absl::Status CheckGuest(const GuestOptions& options) {
  if (geteuid() != 0) {
    return absl::FailedPreconditionError(
        "this benchmark has to be root: it makes a network namespace, and looks into QEMU's "
        "memory");
  }
  if (!IsInPath(options.qemu)) {
    return absl::FailedPreconditionError(
        absl::StrCat("there is no ", options.qemu,
                     "; install it (Debian: qemu-system-x86), or name it by --qemu"));
  }
  for (const char* file : {"vmlinuz", "initrd"}) {
    const std::string path = absl::StrCat(options.folder, "/", file);
    if (access(path.c_str(), R_OK) != 0) {
      return absl::FailedPreconditionError(
          absl::StrCat("there is no guest in --guest=", options.folder, " (", path,
                       "); deploy/e2e/vm/guest/make-guest FOLDER makes it"));
    }
  }
  if (options.accelerator == "kvm" && access("/dev/kvm", R_OK | W_OK) != 0) {
    return absl::FailedPreconditionError("--accel=kvm needs /dev/kvm, which is not there");
  }
  return absl::OkStatus();
}

std::vector<std::string> GuestCommand(const GuestOptions& options, const std::string& backend,
                                      const std::vector<std::string>& qmp_paths) {
  const std::string ram = absl::StrCat(options.ram_mib, "M");
  std::vector<std::string> argv = {
      options.qemu, "-accel", options.accelerator, "-machine", "pc,memory-backend=mem0", "-m", ram,
      "-smp", "1", "-object", absl::StrCat(backend, ",id=mem0,size=", ram), "-nodefaults",
      "-no-user-config", "-display", "none", "-no-reboot",
      // Opened by its name: on a stream of QEMU's that is also its input, the end of that is one.
      "-serial", "file:/dev/stdout", "-kernel", options.folder + "/vmlinuz", "-initrd",
      options.folder + "/initrd", "-append",
      absl::StrCat(
          "console=ttyS0 quiet mitigations=off no_timer_check panic=-1 tick_ms=10 memory_mib=",
          options.busy_mib)};
  for (const std::string& path : qmp_paths) {
    argv.insert(argv.end(), {"-qmp", absl::StrCat("unix:", path, ",server=on,wait=off")});
  }
  return argv;
}

std::vector<GuestTick> TicksOf(const std::vector<StampedLine>& lines) {
  std::vector<GuestTick> ticks;
  for (const StampedLine& line : lines) {
    if (const std::optional<GuestTick> tick = ParseTick(line)) ticks.push_back(*tick);
  }
  return ticks;
}

absl::StatusOr<WatchedProgram> WatchedProgram::Start(const std::string& what,
                                                     const std::vector<std::string>& argv) {
  WatchedProgram program;
  for (auto* stream : {&program.out, &program.err}) {
    absl::StatusOr<std::unique_ptr<OutputLines>> lines = OutputLines::Create(what);
    if (!lines.ok()) return lines.status();
    *stream = *std::move(lines);
  }
  absl::StatusOr<ChildProcess> process = ChildProcess::Start(
      argv, {.in = -1, .out = program.out->write_end(), .err = program.err->write_end()});
  if (!process.ok()) return process.status();
  program.process = *std::move(process);
  program.out->CloseWriteEnd();
  program.err->CloseWriteEnd();
  return program;
}

std::optional<GuestTick> WatchedProgram::LastTick() const {
  const std::vector<GuestTick> ticks = TicksOf(out->Lines());
  if (ticks.empty()) return std::nullopt;
  return ticks.back();
}

absl::Status WatchedProgram::AwaitPass(uint64_t passes, absl::Duration timeout) const {
  const auto has_passed = [passes](const std::string& line) {
    unsigned long pass;
    return sscanf(line.c_str(), "pass %lu bad", &pass) == 1 && pass >= passes;
  };
  const auto line = out->WaitFor(absl::StrCat("pass ", passes), has_passed, timeout);
  if (line.ok()) return absl::OkStatus();
  return absl::Status(line.status().code(), absl::StrCat(line.status().message(), err->Tail()));
}

absl::Status WatchedProgram::CheckWords() const {
  for (const StampedLine& line : out->Lines()) {
    const std::optional<GuestTick> tick = ParseTick(line);
    if (absl::StartsWith(line.text, "BAD") || (tick && tick->bad != 0)) {
      return absl::DataLossError(absl::StrCat("the guest has found a wrong word: ", line.text));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<QmpClient>> ConnectToNew(const std::string& qmp_path,
                                                        const WatchedProgram& qemu) {
  const absl::Time deadline = absl::Now() + kConnectPatience;
  while (true) {
    auto client = QmpClient::Connect(qmp_path, kQmpTimeout);
    if (client.ok() || absl::Now() > deadline) {
      if (client.ok()) return client;
      return absl::Status(client.status().code(), absl::StrCat(client.status().message(),
                                                               "; QEMU said:\n", qemu.err->Tail()));
    }
    if (access(absl::StrCat("/proc/", qemu.process.pid()).c_str(), F_OK) != 0) return client;
    absl::SleepFor(absl::Milliseconds(5));
  }
}

}  // namespace faultline::bench
