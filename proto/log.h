// SPDX-License-Identifier: Apache-2.0
//
// The log of every Faultline program: one line per event, to stderr. Thread-safe.
//
// Logged are starts, stops, changes of state and the first of repeated errors; never single faults.
#ifndef FAULTLINE_PROTO_LOG_H_
#define FAULTLINE_PROTO_LOG_H_

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

namespace faultline {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

// Names the program in every line. Call once, before any thread is started.
void InitLog(absl::string_view program, LogLevel least);

// Parses "debug", "info", "warning" or "error". INVALID_ARGUMENT for anything else.
absl::StatusOr<LogLevel> ParseLogLevel(absl::string_view name);

void Log(LogLevel level, absl::string_view message);

inline void LogDebug(absl::string_view message) { Log(LogLevel::kDebug, message); }
inline void LogInfo(absl::string_view message) { Log(LogLevel::kInfo, message); }
inline void LogWarning(absl::string_view message) { Log(LogLevel::kWarning, message); }
inline void LogError(absl::string_view message) { Log(LogLevel::kError, message); }

}  // namespace faultline

#endif  // FAULTLINE_PROTO_LOG_H_
