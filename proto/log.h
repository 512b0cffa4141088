// SPDX-License-Identifier: Apache-2.0
//
// The log of every Faultline program: one line per event, to stderr. Thread-safe.
//
// Logged are starts, stops, changes of state and the first of repeated errors; never single faults.
#ifndef FAULTLINE_PROTO_LOG_H_
#define FAULTLINE_PROTO_LOG_H_

#include <string_view>

namespace faultline {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

// Names the program in every line. Call once, before any thread is started.
void InitLog(std::string_view program, LogLevel least);

// "debug", "info", "warning" or "error"; false where `name` is none of them.
bool ParseLogLevel(std::string_view name, LogLevel* level);

void Log(LogLevel level, std::string_view message);

inline void LogDebug(std::string_view message) { Log(LogLevel::kDebug, message); }
inline void LogInfo(std::string_view message) { Log(LogLevel::kInfo, message); }
inline void LogWarning(std::string_view message) { Log(LogLevel::kWarning, message); }
inline void LogError(std::string_view message) { Log(LogLevel::kError, message); }

}  // namespace faultline

#endif  // FAULTLINE_PROTO_LOG_H_
