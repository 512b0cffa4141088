// SPDX-License-Identifier: Apache-2.0
//
// faultline: the command for people. Flags are read here and in the commands' Register functions;
// see command.h.
#include <signal.h>

#include <cstdio>
#include <map>
#include <string>

#include <CLI/CLI.hpp>

#include "client/cli/command.h"
#include "proto/libraries.h"

namespace faultline {
namespace {

constexpr RegisterCommands kCommands[] = {
    RegisterVolumeCommands,     RegisterServerCommands,  RegisterAttachCommand,
    RegisterAttachmentsCommand, RegisterDemoCommand,     RegisterBenchCommand,
    RegisterChurnCommand,       RegisterLabCommand,      RegisterVmCommands,
    RegisterRunCommand,         RegisterVmBenchCommands, RegisterTraceCommands,
    RegisterWorkloadCommand,    RegisterSimulateCommand, RegisterExperimentCommand,
    RegisterCompletionCommand,  RegisterTopCommand,
};

void AddServerFlags(CLI::App& app, Session* session) {
  app.add_option(
         "--server", session->server,
         "Address of the page server: host:port or unix:path; of several servers of one store, "
         "those with commas between them, or dns:///host:port")
      ->envname("FAULTLINE_SERVER")
      ->default_val("127.0.0.1:7400")
      ->take_last();
  app.add_option("--tls-ca", session->tls.files.ca,
                 "Certificate of the server's authority, PEM; with it TLS is spoken to a host:port")
      ->envname("FAULTLINE_TLS_CA")
      ->option_text("FILE");
  app.add_option("--tls-cert", session->tls.files.certificate,
                 "This client's certificate, PEM: its common name is who calls")
      ->envname("FAULTLINE_TLS_CERT")
      ->option_text("FILE");
  app.add_option("--tls-key", session->tls.files.key, "Private key of --tls-cert, PEM")
      ->envname("FAULTLINE_TLS_KEY")
      ->option_text("FILE");
  app.add_option("--tls-server-name", session->tls.server_name,
                 "Name that the server's certificate is of, where that is not the host")
      ->envname("FAULTLINE_TLS_SERVER_NAME")
      ->option_text("NAME");
}

constexpr int kFailure = 1;
constexpr int kUsage = 2;

int Main(int argc, char** argv) {
  signal(SIGPIPE, SIG_IGN);  // writing to a closed pipe is an error like any other
  Session session;
  CLI::App app(
      "Manages the volumes of a Faultline page server and looks at its agents.\n"
      "Sizes are in bytes and may have a unit: 64KiB, 256MiB, 1GiB, 2TiB.",
      "faultline");
  app.set_version_flag("--version", std::string("faultline ") + FAULTLINE_VERSION);
  app.fallthrough();
  app.require_subcommand(1);
  app.get_formatter()->column_width(34);
  AddServerFlags(app, &session);
  app.add_option("--output", session.output, "How results are printed: text or json")
      ->transform(CLI::CheckedTransformer(std::map<std::string, OutputFormat>{
          {"text", OutputFormat::kText}, {"json", OutputFormat::kJson}}))
      ->option_text("text|json [text]")
      ->take_last();
  app.footer(
      "Exit status: 0 done, 1 failed, 2 wrong usage.\n"
      "Example:  faultline volume create disk --size=1GiB");
  for (const RegisterCommands add : kCommands) add(&app, &session);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kUsage;
  }
  const absl::Status status = session.run();
  if (status.ok() && fflush(stdout) == 0) return 0;
  if (status.ok()) {
    perror("faultline: cannot write to the standard output");
  } else {
    fprintf(stderr, "faultline: %s\n", std::string(status.message()).c_str());
  }
  return status.code() == absl::StatusCode::kInvalidArgument ? kUsage : kFailure;
}

}  // namespace
}  // namespace faultline

int main(int argc, char** argv) {
  faultline::TuneLibraries();  // some commands are agents of their own
  return faultline::Main(argc, argv);
}
