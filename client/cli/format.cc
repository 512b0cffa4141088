// SPDX-License-Identifier: Apache-2.0
#include "client/cli/format.h"

#include <absl/strings/ascii.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <absl/strings/strip.h>

#include <algorithm>

#include <nlohmann/json.hpp>

#include "proto/units.h"

namespace faultline {
namespace {

using Json = nlohmann::ordered_json;

// "12", "9.8KiB", "50.0%", "-"; no date and no time of day.
bool IsNumber(const std::string& cell) {
  return cell == "-" ||
         (!cell.empty() && absl::ascii_isdigit(static_cast<unsigned char>(cell[0])) &&
          cell.find_first_of("-:") == std::string::npos);
}

std::string Pad(const std::string& cell, size_t width, bool right) {
  const std::string blanks(width - std::min(width, cell.size()), ' ');
  return right ? blanks + cell : cell + blanks;
}

absl::Time ToTime(const google::protobuf::Timestamp& time) {
  return absl::FromUnixSeconds(time.seconds()) + absl::Nanoseconds(time.nanos());
}

std::string UtcTime(absl::Time time) {
  return absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", time, absl::UTCTimeZone());
}

absl::string_view KindName(rpc::Volume::Kind kind) {
  return kind == rpc::Volume::SNAPSHOT ? "snapshot" : "volume";
}

std::string OrDash(const std::string& text) { return text.empty() ? "-" : text; }

std::string FormatMicros(double us) {
  return us < 1000 ? absl::StrFormat("%.0fus", us) : absl::StrFormat("%.1fms", us / 1000);
}

}  // namespace

std::string FormatTable(const std::vector<std::string>& header,
                        const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  std::vector<bool> right;
  for (size_t c = 0; c < header.size(); ++c) {
    size_t width = header[c].size();
    bool numbers = !rows.empty();
    for (const auto& row : rows) {
      width = std::max(width, row[c].size());
      numbers = numbers && IsNumber(row[c]);
    }
    widths.push_back(width);
    right.push_back(numbers);
  }
  std::string text;
  const auto add_line = [&](const std::vector<std::string>& cells) {
    std::string line;
    for (size_t c = 0; c < cells.size(); ++c) {
      absl::StrAppend(&line, c == 0 ? "" : "  ", Pad(cells[c], widths[c], right[c]));
    }
    absl::StripTrailingAsciiWhitespace(&line);
    absl::StrAppend(&text, line, "\n");
  };
  add_line(header);
  for (const auto& row : rows) add_line(row);
  return text;
}

std::string FormatFields(const std::vector<std::pair<std::string, std::string>>& fields) {
  size_t width = 0;
  for (const auto& [name, value] : fields) width = std::max(width, name.size() + 1);
  std::string text;
  for (const auto& [name, value] : fields) {
    absl::StrAppend(&text, Pad(name + ":", width, false), "  ", value, "\n");
  }
  return text;
}

absl::string_view DurabilityName(rpc::Durability durability) {
  switch (durability) {
    case rpc::DURABILITY_INTERVAL:
      return "interval";
    case rpc::DURABILITY_NONE:
      return "none";
    default:
      return "sync";
  }
}

absl::StatusOr<rpc::Durability> ParseDurability(absl::string_view name) {
  for (const rpc::Durability durability :
       {rpc::DURABILITY_SYNC, rpc::DURABILITY_INTERVAL, rpc::DURABILITY_NONE}) {
    if (name == DurabilityName(durability)) return durability;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("unknown durability \"", name, "\"; known are sync, interval and none"));
}

std::string FormatVolumes(std::span<const rpc::Volume> volumes) {
  std::vector<std::vector<std::string>> rows;
  for (const rpc::Volume& volume : volumes) {
    rows.push_back(
        {volume.name(), std::string(KindName(volume.kind())), FormatBytes(volume.size_bytes()),
         FormatBytes(volume.stored_bytes()), absl::StrCat(volume.layers()), OrDash(volume.parent()),
         std::string(DurabilityName(volume.durability())), UtcTime(ToTime(volume.created()))});
  }
  return FormatTable(
      {"NAME", "KIND", "SIZE", "STORED", "LAYERS", "PARENT", "DURABILITY", "CREATED"}, rows);
}

std::string RoleName(rpc::VolumeRole role) {
  return absl::AsciiStrToLower(absl::StripPrefix(rpc::VolumeRole_Name(role), "VOLUME_ROLE_"));
}

absl::StatusOr<rpc::VolumeRole> ParseRole(absl::string_view name) {
  for (const rpc::VolumeRole role :
       {rpc::VOLUME_ROLE_READER, rpc::VOLUME_ROLE_WRITER, rpc::VOLUME_ROLE_OWNER}) {
    if (name == RoleName(role)) return role;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("unknown role \"", name, "\"; known are reader, writer and owner"));
}

std::string FormatVolume(const rpc::Volume& volume) {
  std::vector<std::pair<std::string, std::string>> fields = {
      {"name", volume.name()},
      {"kind", std::string(KindName(volume.kind()))},
      {"id", absl::StrCat(volume.id())},
      {"size",
       absl::StrCat(FormatBytes(volume.size_bytes()), " (", volume.size_bytes(), " bytes)")},
      {"stored", FormatBytes(volume.stored_bytes())},
      {"layers", absl::StrCat(volume.layers())},
      {"parent", OrDash(volume.parent())},
      {"epoch", absl::StrCat(volume.epoch())},
      {"durability", std::string(DurabilityName(volume.durability()))},
      {"created", UtcTime(ToTime(volume.created()))},
      {"owner", OrDash(volume.owner())},
  };
  for (const rpc::VolumeGrant& grant : volume.grants()) {
    fields.emplace_back(RoleName(grant.role()), grant.identity());
  }
  return FormatFields(fields);
}

nlohmann::ordered_json VolumeToJson(const rpc::Volume& volume) {
  Json grants = Json::object();
  for (const rpc::VolumeGrant& grant : volume.grants()) {
    grants[grant.identity()] = RoleName(grant.role());
  }
  return Json{{"name", volume.name()},
              {"id", volume.id()},
              {"kind", std::string(KindName(volume.kind()))},
              {"size_bytes", volume.size_bytes()},
              {"stored_bytes", volume.stored_bytes()},
              {"layers", volume.layers()},
              {"parent", volume.parent()},
              {"epoch", volume.epoch()},
              {"durability", std::string(DurabilityName(volume.durability()))},
              {"created", UtcTime(ToTime(volume.created()))},
              {"owner", volume.owner()},
              {"grants", grants}};
}

std::string FormatServerStatus(const rpc::ServerStatus& status, absl::Time now) {
  const absl::Time started = ToTime(status.started());
  return FormatFields({
      {"version", status.version()},
      {"store", absl::StrCat(status.store(), status.read_only() ? " (read-only)" : "")},
      {"started",
       absl::StrCat(UtcTime(started), " (",
                    absl::FormatDuration(absl::Trunc(now - started, absl::Seconds(1))), " ago)")},
      {"volumes", absl::StrCat(status.volumes())},
      {"stored", FormatBytes(status.stored_bytes())},
      {"free", status.free_bytes() == 0 ? "-" : FormatBytes(status.free_bytes())},
      {"fetch streams", absl::StrCat(status.fetch_streams())},
      {"write streams", absl::StrCat(status.write_streams())},
      {"pages in flight", absl::StrCat(status.pages_in_flight())},
      {"pages fetched", absl::StrCat(status.pages_fetched_total())},
      {"pages written", absl::StrCat(status.pages_written_total())},
      {"requests failed", absl::StrCat(status.requests_failed_total())},
      {"calls refused", absl::StrCat(status.calls_refused_total())},
      {"peers refused", absl::StrCat(status.handshakes_failed_total())},
  });
}

nlohmann::ordered_json ServerStatusToJson(const rpc::ServerStatus& status) {
  return Json{{"version", status.version()},
              {"store", status.store()},
              {"read_only", status.read_only()},
              {"started", UtcTime(ToTime(status.started()))},
              {"volumes", status.volumes()},
              {"stored_bytes", status.stored_bytes()},
              {"free_bytes", status.free_bytes()},
              {"fetch_streams", status.fetch_streams()},
              {"write_streams", status.write_streams()},
              {"pages_in_flight", status.pages_in_flight()},
              {"pages_fetched_total", status.pages_fetched_total()},
              {"pages_written_total", status.pages_written_total()},
              {"requests_failed_total", status.requests_failed_total()},
              {"calls_refused_total", status.calls_refused_total()},
              {"handshakes_failed_total", status.handshakes_failed_total()}};
}

std::string FormatAttachments(std::span<const AttachmentStats> attachments) {
  std::vector<std::vector<std::string>> rows;
  for (const AttachmentStats& a : attachments) {
    rows.push_back({absl::StrCat(a.id), a.parent == 0 ? "-" : absl::StrCat(a.parent),
                    a.pid == 0 ? "-" : absl::StrCat(a.pid), a.volume,
                    FormatBytes(a.tracked_pages * kPageSize),
                    a.tracked_pages == 0
                        ? "-"
                        : absl::StrFormat("%.1f%%", 100.0 * static_cast<double>(a.present_pages) /
                                                        static_cast<double>(a.tracked_pages)),
                    absl::StrCat(a.waiting_faults), absl::StrCat(a.faults_total),
                    absl::StrCat(a.fetch_failures_total), FormatMicros(a.fault_p50_us),
                    FormatMicros(a.fault_p99_us), FormatMicros(a.fault_max_us)});
  }
  return FormatTable({"ID", "FORKED-FROM", "PID", "VOLUME", "MEMORY", "PRESENT", "WAITING",
                      "FAULTS", "FAILED", "P50", "P99", "MAX"},
                     rows);
}

absl::StatusOr<std::vector<AttachmentStats>> ParseAttachments(absl::string_view answer) {
  const auto malformed = [&](absl::string_view what) {
    return absl::InternalError(absl::StrCat("the agent's answer ", what, ": ",
                                            answer.substr(0, std::min<size_t>(answer.size(), 200)),
                                            "; check that the socket is a faultline-agent's"));
  };
  const Json json = Json::parse(answer.begin(), answer.end(), nullptr, false);
  if (!json.is_object()) return malformed("is no JSON object");
  const auto status = json.find("status");
  if (status != json.end() && *status == "error") {
    const auto message = json.find("message");
    return absl::FailedPreconditionError(
        absl::StrCat("the agent refused: ", message != json.end() && message->is_string()
                                                ? message->get<std::string>()
                                                : "no reason given"));
  }
  const auto list = json.find("attachments");
  if (list == json.end() || !list->is_array()) return malformed("holds no attachments");
  std::vector<AttachmentStats> attachments;
  for (const Json& item : *list) {
    AttachmentStats stats;
    std::string wrong;
    VisitFields(stats, [&](const char* name, auto& field) {
      using Field = std::decay_t<decltype(field)>;
      const auto value = item.find(name);
      if (value == item.end()) return;  // an agent of another version
      if constexpr (std::is_same_v<Field, std::string>) {
        value->is_string() ? static_cast<void>(field = value->template get<Field>())
                           : static_cast<void>(wrong = name);
      } else if constexpr (std::is_same_v<Field, bool>) {
        value->is_boolean() ? static_cast<void>(field = value->template get<Field>())
                            : static_cast<void>(wrong = name);
      } else {
        value->is_number() ? static_cast<void>(field = value->template get<Field>())
                           : static_cast<void>(wrong = name);
      }
    });
    if (!wrong.empty()) return malformed(absl::StrCat("has a wrong ", wrong));
    attachments.push_back(std::move(stats));
  }
  return attachments;
}

nlohmann::ordered_json AttachmentToJson(const AttachmentStats& stats) {
  Json json = Json::object();
  VisitFields(stats, [&](const char* name, const auto& field) { json[name] = field; });
  return json;
}

std::string FormatProgress(const Progress& progress) {
  const double seconds = std::max(absl::ToDoubleSeconds(progress.elapsed), 1e-3);
  const double rate = static_cast<double>(progress.done_bytes) / seconds;
  const double mib = 1 << 20;
  std::string line = absl::StrFormat("%.0f MiB", static_cast<double>(progress.done_bytes) / mib);
  if (progress.total_bytes > 0) {
    line = absl::StrFormat("%3d%%  %s of %.0f MiB",
                           static_cast<int>(static_cast<double>(progress.done_bytes) * 100 /
                                            static_cast<double>(progress.total_bytes)),
                           line, static_cast<double>(progress.total_bytes) / mib);
  }
  absl::StrAppendFormat(&line, "  %.0f MiB/s", rate / mib);
  if (rate > 0 && progress.total_bytes > progress.done_bytes) {
    const double left = static_cast<double>(progress.total_bytes - progress.done_bytes) / rate;
    absl::StrAppend(&line, "  ",
                    absl::FormatDuration(absl::Ceil(absl::Seconds(left), absl::Seconds(1))),
                    " left");
  }
  return line;
}

}  // namespace faultline
