// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_CLI_PRINT_H_
#define FAULTLINE_CLIENT_CLI_PRINT_H_

#include <absl/strings/string_view.h>

#include <cstdio>

#include <nlohmann/json.hpp>

namespace faultline {

// To the standard output, whose errors main() looks for at the end.
inline void PrintText(absl::string_view text) { fwrite(text.data(), 1, text.size(), stdout); }

inline void PrintJson(const nlohmann::ordered_json& json) {
  // What is no UTF-8 (a file's name may be anything) is replaced, not refused.
  PrintText(json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
}

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_CLI_PRINT_H_
