// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_VM_QMP_MESSAGE_H_
#define FAULTLINE_CLIENT_VM_QMP_MESSAGE_H_

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>
#include <absl/time/time.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include <nlohmann/json.hpp>

namespace faultline {

// Of one message. The longest that QEMU has, its own schema, is some hundred KiB.
inline constexpr size_t kMaxQmpMessageBytes = size_t{16} << 20;

// What QEMU sends over QMP, its machine protocol.
struct QmpMessage {
  enum class Kind { kGreeting, kReturn, kError, kEvent };

  Kind kind = Kind::kReturn;
  std::optional<uint64_t> id;  // of the command that a kReturn or kError answers, where it says so
  std::string name;            // of a kEvent; the class of a kError
  std::string description;     // of a kError, in QEMU's words
  nlohmann::json value;        // what a kReturn returns, the data of a kEvent, a greeting's "QMP"
  absl::Time time;             // of a kEvent, by QEMU's clock
};

// INVALID_ARGUMENT, quoting how `text` begins, for anything that is none of the four.
absl::StatusOr<QmpMessage> ParseQmpMessage(absl::string_view text);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_VM_QMP_MESSAGE_H_
