// SPDX-License-Identifier: Apache-2.0
#include "client/attach/handover_message.h"

#include <absl/strings/str_cat.h>

#include <initializer_list>
#include <optional>
#include <unordered_set>

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

absl::Status ParseMapping(const json& object, size_t index, HandoverRequest* request,
                          std::vector<bool>* memfds) {
  const std::string where = absl::StrCat("mapping ", index, ": ");
  if (!object.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(where, Quoted(object), " is not an object"));
  }
  const bool firecracker = request->kind == HandoverRequest::Kind::kFirecracker;
  if (!firecracker) {
    absl::Status known = CheckKeys(
        object, {"base_host_virt_addr", "size", "offset", "page_size", "page_size_kib", "memfd"},
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

  absl::StatusOr<std::optional<uint64_t>> memfd = FindNumber(object, "memfd", where);
  if (!memfd.ok()) return memfd.status();
  if (!*memfd) return absl::OkStatus();
  if (**memfd >= memfds->size()) {
    return absl::InvalidArgumentError(absl::StrCat(where, "\"memfd\" is ", **memfd, "; at most ",
                                                   memfds->size(),
                                                   " descriptors may follow the userfaultfd"));
  }
  (*memfds)[**memfd] = true;
  request->mappings.back().shared = true;
  return absl::OkStatus();
}

absl::Status ParseMappings(const json& array, HandoverRequest* request) {
  if (!array.is_array()) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"mappings\" is ", Quoted(array), ", not an array"));
  }
  if (array.empty()) {
    return absl::InvalidArgumentError("no mappings: a handover names at least one");
  }
  if (array.size() > kMaxHandoverMappings) {
    return absl::InvalidArgumentError(absl::StrCat(array.size(), " mappings; at most ",
                                                   kMaxHandoverMappings, " fit in one handover"));
  }
  std::vector<bool> memfds(kMaxHandoverDescriptors - 1);
  for (size_t i = 0; i < array.size(); ++i) {
    if (absl::Status status = ParseMapping(array[i], i, request, &memfds); !status.ok()) {
      return status;
    }
  }
  for (size_t i = 0; i < memfds.size(); ++i) {
    if (!memfds[i]) continue;
    if (i > request->memfds) {
      return absl::InvalidArgumentError(
          absl::StrCat("no mapping has \"memfd\":", request->memfds, ", but one has ", i));
    }
    request->memfds = i + 1;
  }
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

absl::Status ParseAttach(const json& object, HandoverRequest* request) {
  request->kind = HandoverRequest::Kind::kAttach;
  absl::Status status = CheckKeys(
      object, {"volume", "mappings", "mode", "register", "drain", "prefetch", "working_set"}, "");
  if (!status.ok()) return status;
  if (status = ParseVolume(object, request); !status.ok()) return status;
  if (const auto mode = object.find("mode"); mode != object.end()) {
    if (*mode == "far") {
      return absl::UnimplementedError(
          "\"mode\":\"far\" is not available: this agent serves lazy mappings only; use "
          "\"mode\":\"lazy\"");
    }
    if (*mode != "lazy") {
      return absl::InvalidArgumentError(
          absl::StrCat("\"mode\" is ", Quoted(*mode), ", not \"lazy\" or \"far\""));
    }
  }
  absl::StatusOr<std::optional<bool>> register_ranges = FindBool(object, "register");
  if (!register_ranges.ok()) return register_ranges.status();
  request->register_ranges = register_ranges->value_or(false);
  absl::StatusOr<std::optional<bool>> drain = FindBool(object, "drain");
  if (!drain.ok()) return drain.status();
  request->drain = *drain;
  if (status = FindParsed(object, "prefetch", &ParsePrefetchPolicy, &request->prefetch);
      !status.ok()) {
    return status;
  }
  if (status = FindParsed(object, "working_set", &ParseWorkingSetUse, &request->working_set);
      !status.ok()) {
    return status;
  }
  const auto mappings = object.find("mappings");
  if (mappings == object.end()) return absl::InvalidArgumentError("\"mappings\" is missing");
  return ParseMappings(*mappings, request);
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

absl::Status ParseObject(const json& object, HandoverRequest* request) {
  if (object.contains("query")) return ParseQuery(object, request);
  if (!object.contains("detach")) return ParseAttach(object, request);
  request->kind = HandoverRequest::Kind::kDetach;
  if (object["detach"] != true) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"detach\" is ", Quoted(object["detach"]), ", not true"));
  }
  return CheckKeys(object, {"detach"}, "");
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
    status = ParseMappings(root, &request);
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

std::string DetachedReply() { return Line({{"status", "ok"}}); }

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
