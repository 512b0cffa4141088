// SPDX-License-Identifier: Apache-2.0
//
// faultline bench vm|vm-restore
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>

#include "client/bench/limited_link.h"
#include "client/bench/report_writer.h"
#include "client/bench/vm/restore_benchmark.h"
#include "client/bench/vm/vm_benchmark.h"
#include "client/cli/command.h"
#include "client/cli/flags.h"

namespace faultline {
namespace {

constexpr uint64_t kMibMin = 64, kMibMax = uint64_t{1} << 20;

template <typename Options>
struct VmBenchFlags {
  Options options;
  bench::ReportFiles files;
};

template <typename Options>
absl::Status Run(const VmBenchFlags<Options>& flags,
                 absl::StatusOr<bench::Report> (*measure)(const Options&), OutputFormat output) {
  absl::StatusOr<bench::ReportWriter> writer = bench::ReportWriter::Create(flags.files, output);
  if (!writer.ok()) return writer.status();
  absl::StatusOr<bench::Report> report = measure(flags.options);
  if (!report.ok()) return report.status();
  writer->Add(*std::move(report));
  return writer->Finish();
}

void AddGuestFlags(CLI::App* app, bench::GuestOptions* guest) {
  app->add_option("--guest", guest->folder,
                  "Folder with the guest's vmlinuz and initrd, as deploy/e2e/vm/guest/make-guest "
                  "makes it")
      ->required()
      ->option_text("FOLDER");
  app->add_option("--ram-mib", guest->ram_mib, "RAM of the guest, MiB")
      ->check(CLI::Range(kMibMin, kMibMax))
      ->capture_default_str();
  app->add_option("--busy-mib", guest->busy_mib,
                  "Of that, memory that its program checks and rewrites all the time, MiB")
      ->check(CLI::Range(uint64_t{1}, kMibMax))
      ->capture_default_str();
  app->add_option("--qemu", guest->qemu, "The program")
      ->option_text("PROGRAM [qemu-system-x86_64]");
  app->add_option("--accel", guest->accelerator, "QEMU's accelerator")
      ->check(CLI::IsMember({"tcg", "kvm"}))
      ->option_text("tcg|kvm [tcg]");
}

void AddVm(CLI::App* group, Session* session) {
  const auto flags = std::make_shared<VmBenchFlags<bench::VmBenchOptions>>();
  bench::VmBenchOptions* const options = &flags->options;
  CLI::App* app = group->add_subcommand(
      "vm",
      "Moves a busy virtual machine between two QEMUs of this host: by vm offer and vm accept, and "
      "by QEMU's own post-copy and pre-copy, in turn. Every word of the guest's memory is checked "
      "by the guest");
  AddGuestFlags(app, &options->move.guest);
  app->add_option("--repetitions", options->repetitions, "How often each of them is done")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  AddParsed(app, "--link", "RATE",
            "Speed of the link, such as 480mbit: everything is then done in a network namespace "
            "whose loopback tc limits to that [loopback as it is]",
            ParseBitRate, &options->link_bytes_per_second);
  options->modes = {bench::MoveMode::kPostcopy, bench::MoveMode::kPostcopyPreempt,
                    bench::MoveMode::kPrecopy};
  app->add_option("--peers", options->modes, "What Faultline is compared with, or none")
      ->transform(CLI::CheckedTransformer(
          std::map<std::string, bench::MoveMode>{{"postcopy", bench::MoveMode::kPostcopy},
                                                 {"preempt", bench::MoveMode::kPostcopyPreempt},
                                                 {"precopy", bench::MoveMode::kPrecopy},
                                                 {"none", bench::MoveMode::kFaultline}}))
      ->delimiter(',')
      ->option_text("postcopy,preempt,precopy|none [all]");
  AddParsed(app, "--precopy-limit", "DURATION",
            "After so long a pre-copy is taken not to converge [30s]", ParseDuration,
            &options->move.precopy_limit);
  app->add_option("--accept-flag", options->move.accept_flags,
                  "Flag for vm accept, such as --accept-flag=--prefetch=streams; repeatable")
      ->allow_extra_args(false)
      ->option_text("FLAG");
  options->move.directory = "/dev/shm";
  app->add_option("--directory", options->move.directory,
                  "Where RAM and sockets are put for the time of the run; on a tmpfs [/dev/shm]");
  AddReportFlags(app, &flags->files);
  app->footer(
      "Needs root and QEMU.\n"
      "Example:  deploy/e2e/vm/guest/make-guest /tmp/guest\n"
      "          faultline bench vm --guest=/tmp/guest --link=480mbit --plot=vm.svg");
  app->callback(
      [=] { session->run = [=] { return Run(*flags, bench::MoveVms, session->output); }; });
}

void AddVmRestore(CLI::App* group, Session* session) {
  const auto flags = std::make_shared<VmBenchFlags<bench::RestoreBenchOptions>>();
  bench::RestoreBenchOptions* const options = &flags->options;
  options->guest.ram_mib = 1024;
  CLI::App* app = group->add_subcommand(
      "vm-restore",
      "Restores a saved virtual machine: by vm restore, without and with its working set, and four "
      "at once, and by QEMU alone from a file in memory. Every word of the guest's memory is "
      "checked by the guest");
  AddGuestFlags(app, &options->guest);
  app->add_option("--repetitions", options->repetitions, "How often each of them is done")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  options->directory = "/dev/shm";
  app->add_option("--directory", options->directory,
                  "Where RAM and sockets are put for the time of the run; on a tmpfs [/dev/shm]");
  app->add_option("--store", options->store, "Where the page server's store is put [/var/tmp]");
  AddReportFlags(app, &flags->files);
  app->footer(
      "Needs root and QEMU.\n"
      "Example:  faultline bench vm-restore --guest=/tmp/guest --csv=restore.csv");
  app->callback(
      [=] { session->run = [=] { return Run(*flags, bench::RestoreVms, session->output); }; });
}

}  // namespace

void RegisterVmBenchCommands(CLI::App* app, Session* session) {
  AddVm(app->get_subcommand("bench"), session);
  AddVmRestore(app->get_subcommand("bench"), session);
}

}  // namespace faultline
