// SPDX-License-Identifier: Apache-2.0
//
// Flags whose text one of our own parsers reads.
#ifndef FAULTLINE_CLIENT_CLI_FLAGS_H_
#define FAULTLINE_CLIENT_CLI_FLAGS_H_

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <cstdint>
#include <string>

#include <CLI/CLI.hpp>

#include "proto/page.h"
#include "proto/units.h"

namespace faultline {

// Adds a flag whose text `parse` turns into `*value`. A text that it refuses is wrong usage, with
// the parser's message. `value` must outlive the parsing of the command line.
template <typename T>
CLI::Option* AddParsed(CLI::App* app, const std::string& name, const std::string& form,
                       const std::string& description,
                       absl::StatusOr<T> (*parse)(absl::string_view), T* value) {
  return app
      ->add_option_function<std::string>(
          name,
          [name, parse, value](const std::string& text) {
            absl::StatusOr<T> parsed = parse(text);
            if (!parsed.ok()) {
              throw CLI::ValidationError(name, std::string(parsed.status().message()));
            }
            *value = *std::move(parsed);
          },
          description)
      ->option_text(form);
}

// Parses a size that is a multiple of a page.
inline absl::StatusOr<uint64_t> ParseWholePages(absl::string_view text) {
  absl::StatusOr<uint64_t> bytes = ParseBytes(text);
  if (bytes.ok() && !IsPageAligned(*bytes)) {
    return absl::InvalidArgumentError(absl::StrCat(text, " is no multiple of 4KiB"));
  }
  return bytes;
}

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_CLI_FLAGS_H_
