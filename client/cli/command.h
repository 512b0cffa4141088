// SPDX-License-Identifier: Apache-2.0
//
// What the commands of `faultline` share. A group of commands is one file with a Register function
// that stands in the table of main.cc; each command sets its outcome in the Session.
#ifndef FAULTLINE_CLIENT_CLI_COMMAND_H_
#define FAULTLINE_CLIENT_CLI_COMMAND_H_

#include <absl/functional/any_invocable.h>
#include <absl/status/status.h>

#include <string>

#include "client/remote/server_tls.h"

namespace CLI {
class App;
}

namespace faultline {

enum class OutputFormat { kText, kJson };

// The flags of all commands and, after parsing, the command that was chosen.
struct Session {
  std::string server;  // address
  ServerTls tls = {};
  OutputFormat output = OutputFormat::kText;
  // Set by the chosen command's callback. Its error is what the program ends with.
  absl::AnyInvocable<absl::Status()> run;
};

// Adds a group of commands to `app`. Both are borrowed until run() has returned.
using RegisterCommands = void (*)(CLI::App* app, Session* session);

void RegisterVolumeCommands(CLI::App* app, Session* session);
void RegisterServerCommands(CLI::App* app, Session* session);
void RegisterAttachCommand(CLI::App* app, Session* session);
void RegisterAttachmentsCommand(CLI::App* app, Session* session);
void RegisterTopCommand(CLI::App* app, Session* session);
void RegisterDemoCommand(CLI::App* app, Session* session);
void RegisterBenchCommand(CLI::App* app, Session* session);
void RegisterChurnCommand(CLI::App* app, Session* session);
void RegisterLabCommand(CLI::App* app, Session* session);
void RegisterVmCommands(CLI::App* app, Session* session);
void RegisterRunCommand(CLI::App* app, Session* session);
void RegisterTraceCommands(CLI::App* app, Session* session);
void RegisterSimulateCommand(CLI::App* app, Session* session);
// Into the group of RegisterBenchCommand, so after that.
void RegisterVmBenchCommands(CLI::App* app, Session* session);
void RegisterWorkloadCommand(CLI::App* app, Session* session);
void RegisterExperimentCommand(CLI::App* app, Session* session);
void RegisterCompletionCommand(CLI::App* app, Session* session);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_CLI_COMMAND_H_
