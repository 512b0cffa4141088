// SPDX-License-Identifier: Apache-2.0
#include "client/vm/qmp_message.h"

#include <absl/status/status.h>
#include <absl/strings/str_cat.h>

#include <utility>

namespace faultline {
namespace {

using nlohmann::json;

constexpr size_t kMaxQuotedBytes = 80;

absl::Status NotQmp(absl::string_view text) {
  std::string quoted(text.substr(0, kMaxQuotedBytes));
  for (char& c : quoted) {
    if (c < ' ' || c > '~') c = '?';
  }
  return absl::InvalidArgumentError(
      absl::StrCat("no message of QMP: ", quoted, text.size() > kMaxQuotedBytes ? "..." : ""));
}

// `object[key]` where it is a string; otherwise "".
std::string StringOf(const json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_string() ? it->get<std::string>() : "";
}

// The epoch where it says nothing, or what is none.
absl::Time TimeOf(const json& event) {
  const auto timestamp = event.find("timestamp");
  if (timestamp == event.end() || !timestamp->is_object()) return absl::UnixEpoch();
  const auto number = [&](const char* key) {
    const auto it = timestamp->find(key);
    return it != timestamp->end() && it->is_number_integer() ? it->get<int64_t>() : 0;
  };
  return absl::FromUnixSeconds(number("seconds")) + absl::Microseconds(number("microseconds"));
}

}  // namespace

absl::StatusOr<QmpMessage> ParseQmpMessage(absl::string_view text) {
  json parsed = json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (!parsed.is_object()) return NotQmp(text);
  QmpMessage message;
  if (const auto id = parsed.find("id"); id != parsed.end() && id->is_number_unsigned()) {
    message.id = id->get<uint64_t>();
  }
  if (const auto value = parsed.find("return"); value != parsed.end()) {
    message.value = std::move(*value);
    return message;
  }
  if (const auto error = parsed.find("error"); error != parsed.end() && error->is_object()) {
    message.kind = QmpMessage::Kind::kError;
    message.name = StringOf(*error, "class");
    message.description = StringOf(*error, "desc");
    return message;
  }
  if (std::string event = StringOf(parsed, "event"); !event.empty()) {
    message.kind = QmpMessage::Kind::kEvent;
    message.name = std::move(event);
    message.time = TimeOf(parsed);
    message.value = parsed.value("data", json::object());
    return message;
  }
  if (const auto greeting = parsed.find("QMP"); greeting != parsed.end()) {
    message.kind = QmpMessage::Kind::kGreeting;
    message.value = std::move(*greeting);
    return message;
  }
  return NotQmp(text);
}

}  // namespace faultline
