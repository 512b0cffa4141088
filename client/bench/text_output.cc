// SPDX-License-Identifier: Apache-2.0
#include "client/bench/text_output.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_replace.h>
#include <errno.h>

#include <algorithm>
#include <cstdio>

namespace faultline::bench {

std::string AlignColumns(const std::vector<std::vector<std::string>>& lines, size_t left,
                         absl::string_view indent) {
  std::vector<size_t> widths;
  for (const auto& line : lines) {
    widths.resize(std::max(widths.size(), line.size()));
    for (size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], line[i].size());
  }
  std::string text;
  for (const auto& line : lines) {
    std::string formatted;
    for (size_t i = 0; i < line.size(); ++i) {
      const std::string padding(widths[i] - line[i].size(), ' ');
      absl::StrAppend(&formatted, i == 0 ? indent : "  ", i < left ? "" : padding, line[i],
                      i < left ? padding : "");
    }
    formatted.erase(formatted.find_last_not_of(' ') + 1);
    absl::StrAppend(&text, formatted, "\n");
  }
  return text;
}

std::string CsvField(const std::string& text) {
  if (text.find_first_of(",\"\n") == std::string::npos) return text;
  return absl::StrCat("\"", absl::StrReplaceAll(text, {{"\"", "\"\""}}), "\"");
}

absl::Status WriteTextFile(const std::string& path, const std::string& text) {
  FILE* file = fopen(path.c_str(), "we");
  bool written = file != nullptr && fwrite(text.data(), 1, text.size(), file) == text.size();
  if (file != nullptr && fclose(file) != 0) written = false;
  return written ? absl::OkStatus()
                 : absl::ErrnoToStatus(errno, absl::StrCat("cannot write ", path));
}

}  // namespace faultline::bench
