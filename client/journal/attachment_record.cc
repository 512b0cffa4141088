// SPDX-License-Identifier: Apache-2.0
#include "client/journal/attachment_record.h"

#include <absl/strings/str_cat.h>
#include <absl/time/time.h>

#include <fstream>
#include <iterator>
#include <limits>
#include <utility>

#include <nlohmann/json.hpp>

namespace faultline {
namespace {

using nlohmann::ordered_json;

constexpr uint64_t kMaxPercent = 100;

std::string PathOf(const std::string& directory) { return absl::StrCat(directory, "/record"); }

ordered_json ToJson(const AttachmentOptions& options) {
  return {{"fault_policy", std::string(FaultPolicyName(options.policy))},
          {"fault_deadline", absl::FormatDuration(options.fault_deadline)},
          {"shared_discard", std::string(SharedDiscardName(options.shared_discard))},
          {"drain", options.drain},
          {"unregister", options.unregister},
          {"prefetch", std::string(PrefetchPolicyName(options.prefetch))},
          {"working_set", std::string(WorkingSetUseName(options.working_set))}};
}

// Sets `*value` to what `parse` makes of a text.
template <typename T>
absl::Status Parse(const ordered_json& text, absl::StatusOr<T> (*parse)(absl::string_view),
                   T* value) {
  absl::StatusOr<T> parsed = parse(text.get_ref<const std::string&>());
  if (!parsed.ok()) return parsed.status();
  *value = *parsed;
  return absl::OkStatus();
}

absl::Status Parse(const ordered_json& json, AttachmentOptions* options) {
  absl::Status status = Parse(json.at("fault_policy"), &ParseFaultPolicy, &options->policy);
  if (status.ok()) {
    status = Parse(json.at("shared_discard"), &ParseSharedDiscard, &options->shared_discard);
  }
  if (status.ok()) status = Parse(json.at("prefetch"), &ParsePrefetchPolicy, &options->prefetch);
  if (status.ok()) {
    status = Parse(json.at("working_set"), &ParseWorkingSetUse, &options->working_set);
  }
  if (status.ok() && !absl::ParseDuration(json.at("fault_deadline").get<std::string>(),
                                          &options->fault_deadline)) {
    status = absl::InvalidArgumentError("fault_deadline is no duration");
  }
  options->drain = json.at("drain").get<bool>();
  options->unregister = json.at("unregister").get<bool>();
  return status;
}

// Throws as below for anything but a whole number from 0, which nlohmann's get() would convert.
uint64_t ToNumber(const ordered_json& json) {
  return json.get_ref<const ordered_json::number_unsigned_t&>();
}

ordered_json ToJson(AddressRange range) { return {range.start, range.length}; }
ordered_json ToJson(const FileIdentity& file) { return {file.device, file.inode}; }
AddressRange ParseRange(const ordered_json& json) {
  return {ToNumber(json.at(0)), ToNumber(json.at(1))};
}
FileIdentity ParseFile(const ordered_json& json) {
  return {ToNumber(json.at(0)), ToNumber(json.at(1))};
}

ordered_json ToJson(const FarRecord& far) {
  ordered_json json = {{"local_memory", far.limit.bytes},
                       {"local_percent", far.limit.percent},
                       {"policy", far.policy},
                       {"fresh", far.fresh},
                       {"owns_volume", far.owns_volume},
                       {"volume_pages", far.volume_pages},
                       {"least_area", far.least_area},
                       {"excluded", ToJson(far.excluded)},
                       {"staging", ToJson(far.staging)},
                       {"command", ToJson(far.command)},
                       {"files", ordered_json::array()}};
  for (const FarRecord::File& file : far.files) {
    json["files"].push_back({{"file", ToJson(file.file)},
                             {"volume_offset", file.volume_offset},
                             {"file_offset", file.file_offset},
                             {"size", file.size}});
  }
  return json;
}

// Throws as below.
absl::StatusOr<FarRecord> ParseFar(const ordered_json& json) {
  FarRecord far;
  far.limit.bytes = ToNumber(json.at("local_memory"));
  const uint64_t percent = ToNumber(json.at("local_percent"));
  if (percent > kMaxPercent) return absl::InvalidArgumentError("local_percent is more than 100");
  far.limit.percent = static_cast<uint32_t>(percent);
  far.policy = json.at("policy").get<std::string>();
  far.fresh = json.at("fresh").get<bool>();
  far.owns_volume = json.at("owns_volume").get<bool>();
  far.volume_pages = ToNumber(json.at("volume_pages"));
  far.least_area = ToNumber(json.at("least_area"));
  far.excluded = ParseRange(json.at("excluded"));
  far.staging = ParseRange(json.at("staging"));
  far.command = ParseFile(json.at("command"));
  for (const ordered_json& file : json.at("files")) {
    far.files.push_back({ParseFile(file.at("file")), ToNumber(file.at("volume_offset")),
                         ToNumber(file.at("file_offset")), ToNumber(file.at("size"))});
  }
  if (far.volume_pages <= kMaxVolumePages) return far;
  return absl::InvalidArgumentError("volume_pages is more than a volume can have");
}

// Throws what nlohmann throws where a field is missing or of another type.
absl::StatusOr<AttachmentRecord> Parse(const ordered_json& json) {
  AttachmentRecord record;
  record.id = ToNumber(json.at("id"));
  const uint64_t pid = ToNumber(json.at("pid"));
  if (pid > std::numeric_limits<pid_t>::max()) return absl::InvalidArgumentError("pid is none");
  record.process.pid = static_cast<pid_t>(pid);
  record.process.start_time = ToNumber(json.at("start_time"));
  record.process.boot_id = json.at("boot_id").get<std::string>();
  record.uffd_inode = ToNumber(json.at("uffd_inode"));
  record.target_keeps_uffd = json.at("target_keeps_uffd").get<bool>();
  record.volume = json.at("volume").get<std::string>();
  if (absl::Status status = Parse(json.at("options"), &record.options); !status.ok()) return status;
  for (const ordered_json& mapping : json.at("mappings")) {
    record.mappings.push_back({.address = ToNumber(mapping.at("address")),
                               .size = ToNumber(mapping.at("size")),
                               .offset = ToNumber(mapping.at("offset")),
                               .shared = mapping.at("shared").get<bool>()});
  }
  if (json.contains("far")) {
    absl::StatusOr<FarRecord> far = ParseFar(json.at("far"));
    if (!far.ok()) return far.status();
    record.far = *std::move(far);
    if (record.far->is_whole_process()) return record;
  }
  absl::Status status = CheckMappings(record.mappings, PageCount(kMaxVolumePages));
  if (!status.ok()) return status;
  return record;
}

}  // namespace

std::string EncodeRecord(const AttachmentRecord& record) {
  ordered_json json = {{"id", record.id},
                       {"pid", record.process.pid},
                       {"start_time", record.process.start_time},
                       {"boot_id", record.process.boot_id},
                       {"uffd_inode", record.uffd_inode},
                       {"target_keeps_uffd", record.target_keeps_uffd},
                       {"volume", record.volume},
                       {"options", ToJson(record.options)},
                       {"mappings", ordered_json::array()}};
  for (const Mapping& mapping : record.mappings) {
    json["mappings"].push_back({{"address", mapping.address},
                                {"size", mapping.size},
                                {"offset", mapping.offset},
                                {"shared", mapping.shared}});
  }
  if (record.far) json["far"] = ToJson(*record.far);
  return json.dump(2) + "\n";
}

absl::StatusOr<AttachmentRecord> DecodeRecord(absl::string_view text) {
  absl::StatusOr<AttachmentRecord> record;
  try {
    record = Parse(ordered_json::parse(text.begin(), text.end()));
  } catch (const nlohmann::json::exception& e) {
    record = absl::DataLossError(e.what());
  }
  if (record.ok()) return record;
  return absl::DataLossError(record.status().message());
}

absl::Status WriteRecord(const AttachmentRecord& record, const std::string& directory) {
  std::ofstream file(PathOf(directory));
  file << EncodeRecord(record);
  file.close();
  if (file.good()) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat("cannot write ", PathOf(directory)));
}

absl::StatusOr<AttachmentRecord> ReadRecord(const std::string& directory) {
  std::ifstream file(PathOf(directory));
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  absl::StatusOr<AttachmentRecord> record = DecodeRecord(text);
  if (record.ok()) return record;
  return absl::DataLossError(absl::StrCat(PathOf(directory), ": ", record.status().message()));
}

}  // namespace faultline
