// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_EXPERIMENT_SPEC_SECTION_H_
#define FAULTLINE_CLIENT_EXPERIMENT_SPEC_SECTION_H_

#include <absl/status/status.h>
#include <absl/strings/string_view.h>

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <toml++/toml.h>

namespace faultline::experiment {

// Keeps the first error of a TOML file, with the line and the key that it is about.
class SpecErrors {
 public:
  explicit SpecErrors(std::string path) : path_(std::move(path)) {}

  void Add(const toml::source_region& where, absl::string_view key, absl::string_view what);
  const absl::Status& first() const { return first_; }

 private:
  std::string path_;
  absl::Status first_;
};

// One table of a TOML file. What is read is known; FinishReading() refuses what else is there.
// Every reader returns nothing both where the key is missing and where it is wrong, which is noted.
class SpecSection {
 public:
  // Both are borrowed. `name` is its path in the file: "baselines"; empty for the whole.
  SpecSection(const toml::table* table, std::string name, SpecErrors* errors)
      : table_(*table), name_(std::move(name)), errors_(*errors) {}

  std::optional<std::string> Text(const std::string& key);
  std::optional<bool> Switch(const std::string& key);
  // Not negative.
  std::optional<uint64_t> Integer(const std::string& key);
  std::optional<double> Number(const std::string& key);
  // A text or a number, as text.
  std::optional<std::string> TextOrNumber(const std::string& key);
  std::optional<uint64_t> Bytes(const std::string& key);
  // A list of texts, or a single text; `numbers`: numbers, too, as text.
  std::optional<std::vector<std::string>> Texts(const std::string& key, bool numbers = false);
  // The tables of a list of tables, or a single table.
  std::vector<SpecSection> Sections(const std::string& key);

  bool Has(const std::string& key) const { return table_.contains(key); }
  std::vector<std::string> Keys() const;
  void FinishReading();

  // Of a key that is there; of the table itself where it is not.
  void Error(const std::string& key, absl::string_view what);

 private:
  const toml::node* Find(const std::string& key);
  static std::optional<std::string> AsText(const toml::node& node, bool numbers);

  const toml::table& table_;
  const std::string name_;
  SpecErrors& errors_;
  std::set<std::string> read_;
};

}  // namespace faultline::experiment

#endif  // FAULTLINE_CLIENT_EXPERIMENT_SPEC_SECTION_H_
