// SPDX-License-Identifier: Apache-2.0
//
// faultline attachments
#include <memory>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "client/cli/agent_query.h"
#include "client/cli/command.h"
#include "client/cli/format.h"
#include "client/cli/print.h"

namespace faultline {
namespace {

absl::Status Attachments(const Session& session, const std::string& socket) {
  const absl::StatusOr<std::vector<AttachmentStats>> attachments = QueryAttachments(socket);
  if (!attachments.ok()) return attachments.status();
  if (session.output == OutputFormat::kJson) {
    nlohmann::ordered_json list = nlohmann::ordered_json::array();
    for (const AttachmentStats& stats : *attachments) list.push_back(AttachmentToJson(stats));
    PrintJson(list);
  } else {
    PrintText(FormatAttachments(*attachments));
  }
  return absl::OkStatus();
}

}  // namespace

void RegisterAttachmentsCommand(CLI::App* app, Session* session) {
  CLI::App* command = app->add_subcommand(
      "attachments",
      "Lists the processes that an agent of this machine serves, their memory and "
      "the latency of their faults.");
  const auto socket = std::make_shared<std::string>();
  command->add_option("--socket", *socket, "Path of the agent's handover socket")
      ->envname("FAULTLINE_SOCKET")
      ->default_val("/run/faultline/agent.sock");
  command->footer("Example:  faultline attachments --socket=/run/faultline/agent.sock");
  command->callback(
      [session, socket] { session->run = [=] { return Attachments(*session, *socket); }; });
}

}  // namespace faultline
