// SPDX-License-Identifier: Apache-2.0
#include "proto/units.h"

#include <absl/strings/ascii.h>
#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <absl/strings/strip.h>

#include <limits>

namespace faultline {
namespace {

struct Unit {
  const char* name;
  int shift;
};

// Largest first.
constexpr Unit kUnits[] = {{"PiB", 50}, {"TiB", 40}, {"GiB", 30}, {"MiB", 20}, {"KiB", 10}};

absl::Status BadSize(absl::string_view text, absl::string_view why) {
  return absl::InvalidArgumentError(
      absl::StrCat("\"", text, "\" is no size: ", why,
                   "; write a whole number of bytes or one with KiB, MiB, GiB, TiB or PiB"));
}

// The shift that `unit` stands for, or -1.
int ShiftOf(absl::string_view unit) {
  if (unit.empty() || unit == "B") return 0;
  for (const Unit& known : kUnits) {
    if (unit == known.name || unit == absl::string_view(known.name, 1)) return known.shift;
  }
  return -1;
}

}  // namespace

absl::StatusOr<uint64_t> ParseBytes(absl::string_view text) {
  const absl::string_view trimmed = absl::StripAsciiWhitespace(text);
  size_t digits = 0;
  while (digits < trimmed.size() && absl::ascii_isdigit(static_cast<uint8_t>(trimmed[digits]))) {
    ++digits;
  }
  if (digits == 0) return BadSize(text, "it does not start with a number");
  const absl::string_view unit = absl::StripAsciiWhitespace(trimmed.substr(digits));
  const int shift = ShiftOf(unit);
  if (shift < 0) return BadSize(text, absl::StrCat("\"", unit, "\" is no known unit"));
  uint64_t number = 0;
  if (!absl::SimpleAtoi(trimmed.substr(0, digits), &number) ||
      number > std::numeric_limits<uint64_t>::max() >> shift) {
    return BadSize(text, "it is larger than 64 bits can hold");
  }
  return number << shift;
}

std::string FormatBytes(uint64_t bytes) {
  for (const Unit& unit : kUnits) {
    const uint64_t size = uint64_t{1} << unit.shift;
    if (bytes < size) continue;
    if (bytes % size == 0) return absl::StrCat(bytes / size, unit.name);
    return absl::StrFormat("%.1f%s", static_cast<double>(bytes) / static_cast<double>(size),
                           unit.name);
  }
  return absl::StrCat(bytes, "B");
}

std::string FormatExactBytes(uint64_t bytes) {
  for (const Unit& unit : kUnits) {
    const uint64_t size = uint64_t{1} << unit.shift;
    if (bytes >= size && bytes % size == 0) return absl::StrCat(bytes / size, unit.name);
  }
  return absl::StrCat(bytes, "B");
}

absl::StatusOr<absl::Duration> ParseDuration(absl::string_view text) {
  absl::Duration duration;
  if (!absl::ParseDuration(text, &duration)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "\"", text, "\" is no duration; write a number with us, ms, s, m or h, such as 500ms"));
  }
  if (duration < absl::ZeroDuration()) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", text, "\" is a negative duration; it must be 0 or more"));
  }
  return duration;
}

absl::StatusOr<uint64_t> ParseBitRate(absl::string_view text) {
  constexpr struct {
    absl::string_view unit;
    uint64_t bits;
  } kRates[] = {{"kbit", 1'000}, {"mbit", 1'000'000}, {"gbit", 1'000'000'000}};
  constexpr uint64_t kBitsMax = 1'000'000'000'000;
  for (const auto& [unit, bits] : kRates) {
    absl::string_view digits = text;
    uint64_t number;
    if (absl::ConsumeSuffix(&digits, unit) && absl::SimpleAtoi(digits, &number) && number > 0 &&
        number <= kBitsMax / bits) {
      return number * bits / 8;
    }
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "\"", text, "\" is no speed of a link; write it as 100mbit or 1gbit, at most 1000gbit"));
}

std::string FormatBitRate(uint64_t bytes_per_second) {
  const uint64_t kbit = bytes_per_second / 125;
  if (kbit > 0 && kbit % 1'000'000 == 0) return absl::StrCat(kbit / 1'000'000, "gbit");
  if (kbit > 0 && kbit % 1'000 == 0) return absl::StrCat(kbit / 1'000, "mbit");
  return absl::StrCat(kbit, "kbit");
}

}  // namespace faultline
