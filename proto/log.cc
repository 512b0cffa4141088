// SPDX-License-Identifier: Apache-2.0
#include "proto/log.h"

#include <absl/strings/str_cat.h>
#include <spdlog/logger.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <memory>
#include <string>

namespace faultline {
namespace {

spdlog::level::level_enum ToSpdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::err;
}

std::shared_ptr<spdlog::logger> MakeLogger(absl::string_view program, LogLevel least) {
  auto logger = std::make_shared<spdlog::logger>(std::string(program),
                                                 std::make_shared<spdlog::sinks::stderr_sink_mt>());
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%e %n[%P] %l: %v");
  logger->set_level(ToSpdlog(least));
  logger->flush_on(spdlog::level::debug);
  return logger;
}

// Ours, and not spdlog's default logger: that one is made inside the distribution's library, which
// is built without ThreadSanitizer, which then reports races that are none.
std::shared_ptr<spdlog::logger>& Logger() {
  static std::shared_ptr<spdlog::logger> logger = MakeLogger("faultline", LogLevel::kInfo);
  return logger;
}

}  // namespace

void InitLog(absl::string_view program, LogLevel least) { Logger() = MakeLogger(program, least); }

absl::StatusOr<LogLevel> ParseLogLevel(absl::string_view name) {
  if (name == "debug") return LogLevel::kDebug;
  if (name == "info") return LogLevel::kInfo;
  if (name == "warning") return LogLevel::kWarning;
  if (name == "error") return LogLevel::kError;
  return absl::InvalidArgumentError(
      absl::StrCat("\"", name, "\" is no log level; write debug, info, warning or error"));
}

void Log(LogLevel level, absl::string_view message) {
  Logger()->log(ToSpdlog(level), spdlog::string_view_t(message.data(), message.size()));
}

}  // namespace faultline
