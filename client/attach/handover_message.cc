// SPDX-License-Identifier: Apache-2.0
#include "client/attach/handover_message.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <initializer_list>
#include <iterator>
#include <optional>
#include <unordered_set>
#include <utility>

#include <nlohmann/json.hpp>

#include "proto/page.h"
#include "proto/volume_name.h"

namespace faultline {
namespace {

using nlohmann::json;

// Our own texts are 3 deep; the rest is room for fields that Firecracker may add.
constexpr size_t kMaxDepth = 16;
// Of what a peer sent, repeated in a message.
constexpr size_t kMaxQuotedBytes = 80;
// What the JSON library says of a text, which may repeat any part of it.
constexpr size_t kMaxParseErrorBytes = 250;

std::string Quoted(absl::string_view text, size_t limit = kMaxQuotedBytes) {
  if (text.size() <= limit) return std::string(text);
  return absl::StrCat(text.substr(0, limit), "... (", text.size(), " bytes)");
}

std::string Quoted(const json& value) {
  return Quoted(absl::string_view(value.dump(-1, ' ', true, json::error_handler_t::replace)));
}

// Reads a text without building anything and finds what the tree that json::parse builds cannot
// show any more: keys that stand twice. Bounds the depth, too, before anything recurses over it.
class ShapeChecker : public json::json_sax_t {
 public:
  const std::string& error() const { return error_; }

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_object(std::size_t) override { return Open(); }
  bool start_array(std::size_t) override { return Open(); }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }
  bool key(string_t& name) override {
    if (keys_.back().insert(name).second) return true;
    error_ = absl::StrCat("the key ", Quoted(json(name)), " stands twice in one object");
    return false;
  }
  bool parse_error(std::size_t, const std::string&, const json::exception& e) override {
    const absl::string_view what = e.what();
    // Without the library's own "[json.exception.parse_error.101] ".
    const size_t prefix = what.find("] ");
    error_ = absl::StrCat("not JSON: ", Quoted(prefix == what.npos ? what : what.substr(prefix + 2),
                                               kMaxParseErrorBytes));
    return false;
  }

 private:
  bool Open() {
    if (keys_.size() == kMaxDepth) {
      error_ = absl::StrCat("nested deeper than ", kMaxDepth, " levels");
      return false;
    }
    keys_.emplace_back();
    return true;
  }
  bool Close() {
    keys_.pop_back();
    return true;
  }

  std::vector<std::unordered_set<std::string>> keys_;  // of every object and array that is open
  std::string error_;
};

absl::Status CheckKeys(const json& object, std::initializer_list<absl::string_view> known,
                       absl::string_view where) {
  for (const auto& item : object.items()) {
    bool found = false;
    for (absl::string_view name : known) found = found || item.key() == name;
    if (found) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(where, "unknown key ", Quoted(json(item.key()))));
  }
  return absl::OkStatus();
}

// The number `object[key]`; nothing where there is no such key.
absl::StatusOr<std::optional<uint64_t>> FindNumber(const json& object, const char* key,
                                                   absl::string_view where) {
  const auto it = object.find(key);
  if (it == object.end()) return std::optional<uint64_t>();
  // Of the library's kinds this is the one for whole numbers from 0 to 2^64 - 1: what is negative,
  // has a fraction or exponent, or is larger, is of another.
  if (it->is_number_unsigned()) return std::optional<uint64_t>(it->get<uint64_t>());
  return absl::InvalidArgumentError(absl::StrCat(where, "\"", key, "\" is ", Quoted(*it),
                                                 ", not a whole number from 0 to 2^64-1"));
}

// The truth value `object[key]`; nothing where there is no such key.
absl::StatusOr<std::optional<bool>> FindBool(const json& object, const char* key) {
  const auto it = object.find(key);
  if (it == object.end()) return std::optional<bool>();
  if (it->is_boolean()) return std::optional<bool>(it->get<bool>());
  return absl::InvalidArgumentError(
      absl::StrCat("\"", key, "\" is ", Quoted(*it), ", not true or false"));
}

absl::StatusOr<uint64_t> GetNumber(const json& object, const char* key, absl::string_view where) {
  absl::StatusOr<std::optional<uint64_t>> number = FindNumber(object, key, where);
  if (!number.ok()) return number.status();
  if (*number) return **number;
  return absl::InvalidArgumentError(absl::StrCat(where, "\"", key, "\" is missing"));
}

absl::Status CheckPageSize(const json& object, absl::string_view where) {
  for (const char* key : {"page_size", "page_size_kib"}) {
    absl::StatusOr<std::optional<uint64_t>> size = FindNumber(object, key, where);
    if (!size.ok()) return size.status();
    if (!*size) continue;
    if (**size == kPageSize) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat(where, "\"", key, "\" is ", **size, " bytes; this agent serves pages of ",
                     kPageSize, " bytes only, so use memory without huge pages"));
  }
  return absl::OkStatus();
}

// The descriptors that a request names, of those that follow the userfaultfd.
class NamedDescriptors {
 public:
  // The descriptor `object[key]`; nothing where there is no such key.
  absl::StatusOr<std::optional<uint64_t>> Find(const json& object, const char* key,
                                               absl::string_view where) {
    absl::StatusOr<std::optional<uint64_t>> index = FindNumber(object, key, where);
    if (!index.ok() || !*index) return index;
    if (**index >= named_.size()) {
      return absl::InvalidArgumentError(absl::StrCat(where, "\"", key, "\" is ", **index,
                                                     "; at most ", named_.size(),
                                                     " descriptors may follow the userfaultfd"));
    }
    named_[**index] = true;
    return index;
  }

  bool Has(uint64_t index) const { return named_[index]; }

  // How many there are. INVALID_ARGUMENT where one is left out.
  absl::StatusOr<size_t> Count() const {
    size_t count = 0;
    for (size_t i = 0; i < named_.size(); ++i) {
      if (!named_[i]) continue;
      if (i > count) {
        return absl::InvalidArgumentError(absl::StrCat(
            "nothing names the descriptor ", count, " after the userfaultfd, but something ", i));
      }
      count = i + 1;
    }
    return count;
  }

 private:
  std::vector<bool> named_ = std::vector<bool>(kMaxHandoverDescriptors - 1);
};

absl::Status ParseMapping(const json& object, size_t index, HandoverRequest* request,
                          NamedDescriptors* descriptors) {
  const std::string where = absl::StrCat("mapping ", index, ": ");
  if (!object.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(where, Quoted(object), " is not an object"));
  }
  const bool firecracker = request->kind == HandoverRequest::Kind::kFirecracker;
  if (!firecracker) {
    absl::Status known = CheckKeys(object,
                                   {"base_host_virt_addr", "size", "offset", "page_size",
                                    "page_size_kib", "memfd", "memfd_offset"},
                                   where);
    if (!known.ok()) return known;
  }
  absl::StatusOr<uint64_t> address = GetNumber(object, "base_host_virt_addr", where);
  if (!address.ok()) return address.status();
  absl::StatusOr<uint64_t> size = GetNumber(object, "size", where);
  if (!size.ok()) return size.status();
  absl::StatusOr<uint64_t> offset = GetNumber(object, "offset", where);
  if (!offset.ok()) return offset.status();
  if (absl::Status status = CheckPageSize(object, where); !status.ok()) return status;
  request->mappings.push_back({*address, *size, *offset});
  if (firecracker) return absl::OkStatus();

  absl::StatusOr<std::optional<uint64_t>> memfd = descriptors->Find(object, "memfd", where);
  if (!memfd.ok()) return memfd.status();
  request->mappings.back().shared = memfd->has_value();
  absl::StatusOr<std::optional<uint64_t>> file_offset = FindNumber(object, "memfd_offset", where);
  if (!file_offset.ok()) return file_offset.status();
  if (*file_offset && (!*memfd || !IsPageAligned(**file_offset))) {
    return absl::InvalidArgumentError(absl::StrCat(
        where, "\"memfd_offset\" needs a \"memfd\", and has to be a multiple of 4096"));
  }
  if (request->far && *memfd) {
    request->far->files.push_back(
        {**memfd, request->mappings.size() - 1, file_offset->value_or(0)});
  }
  return absl::OkStatus();
}

absl::Status ParseMappings(const json& array, HandoverRequest* request,
                           NamedDescriptors* descriptors) {
  if (!array.is_array()) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"mappings\" is ", Quoted(array), ", not an array"));
  }
  if (array.empty() && !(request->far && request->far->helper)) {
    return absl::InvalidArgumentError("no mappings: a handover names at least one");
  }
  if (array.size() > kMaxHandoverMappings) {
    return absl::InvalidArgumentError(absl::StrCat(array.size(), " mappings; at most ",
                                                   kMaxHandoverMappings, " fit in one handover"));
  }
  for (size_t i = 0; i < array.size(); ++i) {
    if (absl::Status status = ParseMapping(array[i], i, request, descriptors); !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

constexpr uint64_t kLeastFarArea = uint64_t{128} << 10;

// The range of `object[start_key]` and `object[size_key]`, both multiples of 4096.
absl::StatusOr<AddressRange> GetRange(const json& object, const char* start_key,
                                      const char* size_key, absl::string_view where) {
  absl::StatusOr<uint64_t> start = GetNumber(object, start_key, where);
  if (!start.ok()) return start.status();
  absl::StatusOr<uint64_t> size = GetNumber(object, size_key, where);
  if (!size.ok()) return size.status();
  if (IsPageAligned(*start) && IsPageAligned(*size) && *size <= UINT64_MAX - *start) {
    return AddressRange{*start, *size};
  }
  return absl::InvalidArgumentError(absl::StrCat(where, "\"", start_key, "\" and \"", size_key,
                                                 "\" are no range of whole pages"));
}

absl::Status ParseHelper(const json& object, NamedDescriptors* descriptors, FarRequest* far) {
  absl::StatusOr<std::optional<uint64_t>> least = FindNumber(object, "least", "far: ");
  if (!least.ok()) return least.status();
  const auto found = object.find("helper");
  if (found == object.end()) {
    if (!*least) return absl::OkStatus();
    return absl::InvalidArgumentError("far: \"least\" needs a \"helper\"");
  }
  constexpr absl::string_view kWhere = "far: helper: ";
  if (!found->is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(kWhere, Quoted(*found), " is not an object"));
  }
  absl::Status status =
      CheckKeys(*found, {"command", "start", "size", "staging", "staging_size"}, kWhere);
  if (!status.ok()) return status;
  absl::StatusOr<std::optional<uint64_t>> command = descriptors->Find(*found, "command", kWhere);
  if (!command.ok()) return command.status();
  if (!*command) return absl::InvalidArgumentError("far: helper: \"command\" is missing");
  absl::StatusOr<AddressRange> memory = GetRange(*found, "start", "size", kWhere);
  if (!memory.ok()) return memory.status();
  absl::StatusOr<AddressRange> staging = GetRange(*found, "staging", "staging_size", kWhere);
  if (!staging.ok()) return staging.status();
  far->helper = {**command, *memory, *staging, least->value_or(kLeastFarArea)};
  return absl::OkStatus();
}

// The text `object[key]`; empty where there is no such key.
absl::StatusOr<std::string> FindText(const json& object, const char* key, absl::string_view where) {
  const auto it = object.find(key);
  if (it == object.end()) return std::string();
  if (it->is_string()) return it->get<std::string>();
  return absl::InvalidArgumentError(
      absl::StrCat(where, "\"", key, "\" is ", Quoted(*it), ", not a text"));
}

absl::Status ParseNewVolume(const json& object, FarRequest* far) {
  absl::StatusOr<std::optional<uint64_t>> size = FindNumber(object, "create_volume", "far: ");
  if (!size.ok()) return size.status();
  absl::StatusOr<std::string> snapshot = FindText(object, "from_snapshot", "far: ");
  if (!snapshot.ok()) return snapshot.status();
  absl::StatusOr<std::string> durability = FindText(object, "durability", "far: ");
  if (!durability.ok()) return durability.status();
  const int ways = (far->make_volume > 0) + size->has_value() + !snapshot->empty();
  if (ways > 1) {
    return absl::InvalidArgumentError(
        "far: \"make_volume\", \"create_volume\" and \"from_snapshot\" exclude each other");
  }
  if (!durability->empty() && !*size) {
    return absl::InvalidArgumentError("far: \"durability\" needs \"create_volume\"");
  }
  if (*size && **size == 0) {
    return absl::InvalidArgumentError("far: \"create_volume\" is of 0 bytes");
  }
  if (*size || !snapshot->empty()) {
    far->new_volume = {"", size->value_or(0), *std::move(snapshot), *std::move(durability)};
  }
  return absl::OkStatus();
}

absl::Status ParseFar(const json& request_object, NamedDescriptors* descriptors,
                      HandoverRequest* request) {
  FarRequest& far = request->far.emplace();
  const auto found = request_object.find("far");
  if (found == request_object.end()) return absl::OkStatus();
  const json& object = *found;
  if (!object.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"far\" is ", Quoted(object), ", not an object"));
  }
  absl::Status status = CheckKeys(object,
                                  {"local_memory", "policy", "fresh", "make_volume", "helper",
                                   "least", "create_volume", "durability", "from_snapshot"},
                                  "far: ");
  if (!status.ok()) return status;
  absl::StatusOr<std::optional<uint64_t>> local = FindNumber(object, "local_memory", "far: ");
  if (!local.ok()) return local.status();
  far.local_memory = *local;
  absl::StatusOr<std::optional<bool>> fresh = FindBool(object, "fresh");
  if (!fresh.ok()) return fresh.status();
  far.fresh = fresh->value_or(false);
  absl::StatusOr<std::optional<uint64_t>> size = FindNumber(object, "make_volume", "far: ");
  if (!size.ok()) return size.status();
  far.make_volume = size->value_or(0);
  if (const auto policy = object.find("policy"); policy != object.end()) {
    if (!policy->is_string()) {
      return absl::InvalidArgumentError(
          absl::StrCat("far: \"policy\" is ", Quoted(*policy), ", not a name"));
    }
    far.policy = policy->get<std::string>();
  }
  if (status = ParseNewVolume(object, &far); !status.ok()) return status;
  return ParseHelper(object, descriptors, &far);
}

absl::Status ParseMode(const json& object, NamedDescriptors* descriptors,
                       HandoverRequest* request) {
  const auto mode = object.find("mode");
  if (mode != object.end() && *mode == "far") return ParseFar(object, descriptors, request);
  if (mode != object.end() && *mode != "lazy") {
    return absl::InvalidArgumentError(
        absl::StrCat("\"mode\" is ", Quoted(*mode), ", not \"lazy\" or \"far\""));
  }
  if (!object.contains("far")) return absl::OkStatus();
  return absl::InvalidArgumentError("\"far\" goes with \"mode\":\"far\" only");
}

// Of a request in our form, beside its mappings.
absl::Status ParseDescriptors(const json& object, NamedDescriptors* descriptors,
                              HandoverRequest* request) {
  const NamedDescriptors of_mappings = *descriptors;
  absl::StatusOr<std::optional<uint64_t>> pidfd = descriptors->Find(object, "pidfd", "");
  if (!pidfd.ok()) return pidfd.status();
  if (*pidfd && of_mappings.Has(**pidfd)) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"pidfd\" is ", **pidfd, ", which is a mapping's \"memfd\", too"));
  }
  request->pidfd = *pidfd;
  absl::StatusOr<size_t> count = descriptors->Count();
  if (!count.ok()) return count.status();
  request->further_descriptors = *count;
  return absl::OkStatus();
}

absl::Status ParseVolume(const json& object, HandoverRequest* request) {
  const auto it = object.find("volume");
  if (it == object.end()) return absl::InvalidArgumentError("\"volume\" is missing");
  if (!it->is_string()) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"volume\" is ", Quoted(*it), ", not the name of a volume"));
  }
  const std::string& name = it->get_ref<const std::string&>();
  if (absl::Status status = CheckVolumeName(name); !status.ok()) return status;
  request->volume = name;
  return absl::OkStatus();
}

// The value of `key` by its name, where it is there.
template <typename Value>
absl::Status FindParsed(const json& object, const char* key,
                        absl::StatusOr<Value> (*parse)(absl::string_view),
                        std::optional<Value>* found) {
  const auto it = object.find(key);
  if (it == object.end()) return absl::OkStatus();
  const absl::StatusOr<Value> value =
      parse(it->is_string() ? it->get_ref<const std::string&>() : Quoted(*it));
  if (!value.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("\"", key, "\": ", value.status().message()));
  }
  *found = *value;
  return absl::OkStatus();
}

absl::Duration ToDeadline(uint64_t milliseconds) {
  constexpr uint64_t kLongest = uint64_t{1} << 40;  // 34 years: a deadline that can be added to now
  return absl::Milliseconds(static_cast<int64_t>(std::min(milliseconds, kLongest)));
}

absl::Status ParseMappingsOf(const json& object, NamedDescriptors* descriptors,
                             HandoverRequest* request) {
  const auto mappings = object.find("mappings");
  const bool whole_process = request->far && request->far->helper;
  if (mappings == object.end()) {
    if (whole_process) return absl::OkStatus();
    return absl::InvalidArgumentError("\"mappings\" is missing");
  }
  absl::Status status = ParseMappings(*mappings, request, descriptors);
  if (!status.ok() || !request->far) return status;
  if (whole_process && !request->mappings.empty()) {
    return absl::InvalidArgumentError(
        "a \"helper\" is for all anonymous memory of a process: there can be no mappings");
  }
  if (!whole_process && request->far->files.size() != request->mappings.size()) {
    return absl::InvalidArgumentError(
        "each mapping of far memory needs its \"memfd\"; anonymous memory needs a \"helper\"");
  }
  return absl::OkStatus();
}

// Whether they are pages of the volume is seen once that is open.
absl::Status ParseFirstPages(const json& object, HandoverRequest* request) {
  const auto found = object.find("first_pages");
  if (found == object.end()) return absl::OkStatus();
  const bool numbers =
      found->is_array() && std::all_of(found->begin(), found->end(),
                                       [](const json& one) { return one.is_number_unsigned(); });
  if (!numbers) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"first_pages\" is ", Quoted(*found), ", not an array of numbers"));
  }
  request->first_pages = found->get<std::vector<uint64_t>>();
  return absl::OkStatus();
}

absl::Status ParseAttach(const json& object, HandoverRequest* request) {
  request->kind = HandoverRequest::Kind::kAttach;
  absl::Status status = CheckKeys(
      object,
      {"volume", "mappings", "mode", "register", "drain", "unregister", "prefetch", "working_set",
       "first_pages", "shared_discard", "fault_policy", "fault_deadline_ms", "pidfd", "far"},
      "");
  if (!status.ok()) return status;
  if (status = ParseVolume(object, request); !status.ok()) return status;
  NamedDescriptors descriptors;
  if (status = ParseMode(object, &descriptors, request); !status.ok()) return status;
  if (request->far && request->far->new_volume) request->far->new_volume->name = request->volume;
  absl::StatusOr<std::optional<bool>> register_ranges = FindBool(object, "register");
  if (!register_ranges.ok()) return register_ranges.status();
  request->register_ranges = register_ranges->value_or(false);
  absl::StatusOr<std::optional<bool>> drain = FindBool(object, "drain");
  if (!drain.ok()) return drain.status();
  request->drain = *drain;
  absl::StatusOr<std::optional<bool>> unregister = FindBool(object, "unregister");
  if (!unregister.ok()) return unregister.status();
  request->unregister = unregister->value_or(false);
  if (status = FindParsed(object, "prefetch", &ParsePrefetchPolicy, &request->prefetch);
      !status.ok()) {
    return status;
  }
  if (status = FindParsed(object, "working_set", &ParseWorkingSetUse, &request->working_set);
      !status.ok()) {
    return status;
  }
  if (status = ParseFirstPages(object, request); !status.ok()) return status;
  if (status = FindParsed(object, "shared_discard", &ParseSharedDiscard, &request->shared_discard);
      !status.ok()) {
    return status;
  }
  if (status = FindParsed(object, "fault_policy", &ParseFaultPolicy, &request->fault_policy);
      !status.ok()) {
    return status;
  }
  absl::StatusOr<std::optional<uint64_t>> deadline = FindNumber(object, "fault_deadline_ms", "");
  if (!deadline.ok()) return deadline.status();
  if (*deadline) request->fault_deadline = ToDeadline(**deadline);
  if (status = ParseMappingsOf(object, &descriptors, request); !status.ok()) return status;
  return ParseDescriptors(object, &descriptors, request);
}

absl::Status ParseQuery(const json& object, HandoverRequest* request) {
  const json& what = object.at("query");
  if (what == "attachments") {
    request->kind = HandoverRequest::Kind::kQueryAttachments;
    return CheckKeys(object, {"query"}, "");
  }
  if (what == "volume") {
    request->kind = HandoverRequest::Kind::kQueryVolume;
    absl::Status status = CheckKeys(object, {"query", "volume"}, "");
    return status.ok() ? ParseVolume(object, request) : status;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("\"query\" is ", Quoted(what), ", not \"attachments\" or \"volume\""));
}

// The pages of `object`'s "offset" and "length".
absl::StatusOr<PageRange> GetPages(const json& object) {
  absl::StatusOr<uint64_t> offset = GetNumber(object, "offset", "");
  if (!offset.ok()) return offset.status();
  absl::StatusOr<uint64_t> length = GetNumber(object, "length", "");
  if (!length.ok()) return length.status();
  if (!IsPageAligned(*offset) || !IsPageAligned(*length) || *length == 0 ||
      *length > UINT64_MAX - *offset) {
    return absl::InvalidArgumentError(
        absl::StrCat("offset ", *offset, " and length ", *length,
                     " are no range of whole pages; both have to be multiples of 4096"));
  }
  return PageRange{PageIndex::Containing(*offset), PageCount(*length / kPageSize)};
}

absl::Status ParseFarCommand(const json& object, HandoverRequest* request) {
  using Command = FarCommand::Kind;
  constexpr std::pair<absl::string_view, Command> kCommands[] = {
      {"will_need", Command::kWillNeed},
      {"will_not_need", Command::kWillNotNeed},
      {"pin", Command::kPin},
      {"unpin", Command::kUnpin},
      {"flush", Command::kFlush},
      {"checkpoint", Command::kCheckpoint}};
  request->kind = HandoverRequest::Kind::kFarCommand;
  absl::Status status = CheckKeys(
      object, {"far_command", "attachment", "offset", "length", "snapshot", "timeout_ms"}, "");
  if (!status.ok()) return status;
  const json& name = object.at("far_command");
  const auto* const found =
      std::find_if(std::begin(kCommands), std::end(kCommands),
                   [&](const auto& command) { return name == std::string(command.first); });
  if (found == std::end(kCommands)) {
    return absl::InvalidArgumentError(absl::StrCat("unknown far_command ", Quoted(name)));
  }
  request->command.kind = found->second;
  absl::StatusOr<uint64_t> id = GetNumber(object, "attachment", "");
  if (!id.ok()) return id.status();
  request->attachment = *id;
  absl::StatusOr<std::optional<uint64_t>> timeout = FindNumber(object, "timeout_ms", "");
  if (!timeout.ok()) return timeout.status();
  request->command_timeout = ToDeadline(timeout->value_or(60'000));
  if (found->second == Command::kFlush) return absl::OkStatus();
  if (found->second == Command::kCheckpoint) {
    absl::StatusOr<std::string> snapshot = FindText(object, "snapshot", "");
    if (!snapshot.ok()) return snapshot.status();
    request->command.snapshot = *std::move(snapshot);
    return CheckVolumeName(request->command.snapshot);
  }
  absl::StatusOr<PageRange> pages = GetPages(object);
  if (!pages.ok()) return pages.status();
  request->command.pages = *pages;
  return absl::OkStatus();
}

absl::Status ParseObject(const json& object, HandoverRequest* request) {
  if (object.contains("query")) return ParseQuery(object, request);
  if (object.contains("far_command")) return ParseFarCommand(object, request);
  if (!object.contains("detach")) return ParseAttach(object, request);
  request->kind = HandoverRequest::Kind::kDetach;
  if (object["detach"] != true) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"detach\" is ", Quoted(object["detach"]), ", not true"));
  }
  absl::StatusOr<std::optional<uint64_t>> id = FindNumber(object, "attachment", "");
  if (!id.ok()) return id.status();
  request->attachment = *id;
  return CheckKeys(object, {"detach", "attachment"}, "");
}

std::string Line(const json& object) {
  return object.dump(-1, ' ', true, json::error_handler_t::replace) + "\n";
}

}  // namespace

absl::StatusOr<HandoverRequest> ParseHandover(absl::string_view text) {
  if (text.size() > kMaxHandoverBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(text.size(), " bytes; a text may have ", kMaxHandoverBytes));
  }
  ShapeChecker shape;
  if (!json::sax_parse(text.begin(), text.end(), &shape)) {
    return absl::InvalidArgumentError(shape.error());
  }
  const json root = json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  HandoverRequest request;
  absl::Status status;
  if (root.is_array()) {
    request.kind = HandoverRequest::Kind::kFirecracker;
    NamedDescriptors none;
    status = ParseMappings(root, &request, &none);
  } else if (root.is_object()) {
    status = ParseObject(root, &request);
  } else {
    status = absl::InvalidArgumentError(
        absl::StrCat(Quoted(root), " is neither an object nor an array"));
  }
  if (!status.ok()) return status;
  return request;
}

std::string AttachedReply(AttachmentId id) { return Line({{"status", "ok"}, {"attachment", id}}); }

std::string DoneReply() { return Line({{"status", "ok"}}); }

std::string VolumeReply(uint64_t size_bytes) {
  return Line({{"status", "ok"}, {"size", size_bytes}});
}

std::string AttachmentsReply(const std::vector<AttachmentStats>& attachments) {
  json list = json::array();
  for (const AttachmentStats& a : attachments) {
    json object = json::object();
    VisitFields(a, [&object](const char* name, const auto& value) { object[name] = value; });
    list.push_back(std::move(object));
  }
  return Line({{"status", "ok"}, {"attachments", std::move(list)}});
}

std::string ErrorReply(absl::string_view message) {
  return Line({{"status", "error"}, {"message", std::string(message)}});
}

}  // namespace faultline
