// SPDX-License-Identifier: Apache-2.0
//
// How measurements are written: as tables for people, and into files.
#ifndef FAULTLINE_CLIENT_BENCH_TEXT_OUTPUT_H_
#define FAULTLINE_CLIENT_BENCH_TEXT_OUTPUT_H_

#include <absl/status/status.h>
#include <absl/strings/string_view.h>

#include <cstddef>
#include <string>
#include <vector>

namespace faultline::bench {

// Columns as wide as their widest cell, two spaces apart; the first `left` of them set to the left,
// the others to the right. Each line begins with `indent` and has no spaces at its end.
std::string AlignColumns(const std::vector<std::vector<std::string>>& lines, size_t left,
                         absl::string_view indent = "");

// A field of a CSV file, in quotes where it needs them.
std::string CsvField(const std::string& text);

// Replaces what the file holds. The error names it.
absl::Status WriteTextFile(const std::string& path, const std::string& text);

}  // namespace faultline::bench

#endif  // FAULTLINE_CLIENT_BENCH_TEXT_OUTPUT_H_
