// SPDX-License-Identifier: Apache-2.0
//
// What `faultline` prints: tables for people and JSON for programs. Pure functions.
#ifndef FAULTLINE_CLIENT_CLI_FORMAT_H_
#define FAULTLINE_CLIENT_CLI_FORMAT_H_

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>
#include <absl/time/time.h>

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "client/attachment.h"
#include "proto/admin.pb.h"

namespace faultline {

// Lines of columns, each as wide as its widest cell. Columns of numbers are set to the right.
std::string FormatTable(const std::vector<std::string>& header,
                        const std::vector<std::vector<std::string>>& rows);

// One "name: value" per line, the values below each other.
std::string FormatFields(const std::vector<std::pair<std::string, std::string>>& fields);

absl::string_view DurabilityName(rpc::Durability durability);
// Parses "sync", "interval" or "none".
absl::StatusOr<rpc::Durability> ParseDurability(absl::string_view name);

std::string RoleName(rpc::VolumeRole role);
// Parses "reader", "writer" or "owner".
absl::StatusOr<rpc::VolumeRole> ParseRole(absl::string_view name);

std::string FormatVolumes(std::span<const rpc::Volume> volumes);
std::string FormatVolume(const rpc::Volume& volume);
nlohmann::ordered_json VolumeToJson(const rpc::Volume& volume);

std::string FormatServerStatus(const rpc::ServerStatus& status, absl::Time now);
nlohmann::ordered_json ServerStatusToJson(const rpc::ServerStatus& status);

std::string FormatAttachments(std::span<const AttachmentStats> attachments);
// Reads an agent's answer to the query for its attachments. The status that it tells where it
// refused; INVALID_ARGUMENT is never returned, but INTERNAL for what is no such answer.
absl::StatusOr<std::vector<AttachmentStats>> ParseAttachments(absl::string_view answer);
nlohmann::ordered_json AttachmentToJson(const AttachmentStats& stats);

// How far a transfer is. `total_bytes` may be 0 while it is not known yet.
struct Progress {
  uint64_t done_bytes = 0;
  uint64_t total_bytes = 0;
  absl::Duration elapsed;
};

// As " 45%  461MiB of 1GiB  352MiB/s  2s left".
std::string FormatProgress(const Progress& progress);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_CLI_FORMAT_H_
