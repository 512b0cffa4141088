// SPDX-License-Identifier: Apache-2.0
//
// faultline server status
#include <absl/time/clock.h>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "client/cli/command.h"
#include "client/cli/format.h"
#include "client/cli/print.h"
#include "client/remote/admin_client.h"

namespace faultline {
namespace {

absl::Status Status(const Session& session) {
  const auto client = AdminClient::Create({.address = session.server, .tls = session.tls});
  if (!client.ok()) return client.status();
  const absl::StatusOr<rpc::ServerStatus> status = (*client)->GetServerStatus();
  if (!status.ok()) return status.status();
  if (session.output == OutputFormat::kJson) {
    PrintJson(ServerStatusToJson(*status));
  } else {
    PrintText(FormatServerStatus(*status, absl::Now()));
  }
  return absl::OkStatus();
}

}  // namespace

void RegisterServerCommands(CLI::App* app, Session* session) {
  CLI::App* group = app->add_subcommand("server", "Looks at the page server");
  group->require_subcommand(1);
  CLI::App* status =
      group->add_subcommand("status", "Tells the server's version, store, space and load.");
  status->footer("Example:  faultline --server=pages:7400 server status");
  status->callback([session] { session->run = [session] { return Status(*session); }; });
}

}  // namespace faultline
