// SPDX-License-Identifier: Apache-2.0
#include "client/experiment/spec_section.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>

#include "proto/units.h"

namespace faultline::experiment {

void SpecErrors::Add(const toml::source_region& where, absl::string_view key,
                     absl::string_view what) {
  if (!first_.ok()) return;
  first_ = absl::InvalidArgumentError(
      absl::StrCat(path_, ":", where.begin.line, ": ", key, key.empty() ? "" : ": ", what));
}

const toml::node* SpecSection::Find(const std::string& key) {
  read_.insert(key);
  return table_.get(key);
}

void SpecSection::Error(const std::string& key, absl::string_view what) {
  const toml::node* node = table_.get(key);
  const std::string name = name_.empty() || key.empty() ? name_ + key : name_ + "." + key;
  errors_.Add(node != nullptr ? node->source() : table_.source(), name, what);
}

std::optional<std::string> SpecSection::AsText(const toml::node& node, bool numbers) {
  if (const auto* text = node.as_string()) return text->get();
  if (!numbers) return std::nullopt;
  if (const auto* integer = node.as_integer()) return absl::StrCat(integer->get());
  if (const auto* number = node.as_floating_point()) return absl::StrCat(number->get());
  return std::nullopt;
}

std::optional<std::string> SpecSection::Text(const std::string& key) {
  const toml::node* node = Find(key);
  if (node == nullptr) return std::nullopt;
  std::optional<std::string> text = AsText(*node, /*numbers=*/false);
  if (!text) Error(key, "give a text in quotes");
  return text;
}

std::optional<std::string> SpecSection::TextOrNumber(const std::string& key) {
  const toml::node* node = Find(key);
  if (node == nullptr) return std::nullopt;
  std::optional<std::string> text = AsText(*node, /*numbers=*/true);
  if (!text) Error(key, "give a number, or a text in quotes");
  return text;
}

std::optional<bool> SpecSection::Switch(const std::string& key) {
  const toml::node* node = Find(key);
  if (node == nullptr) return std::nullopt;
  if (const auto* boolean = node->as_boolean()) return boolean->get();
  Error(key, "give true or false");
  return std::nullopt;
}

std::optional<uint64_t> SpecSection::Integer(const std::string& key) {
  const toml::node* node = Find(key);
  if (node == nullptr) return std::nullopt;
  const auto* integer = node->as_integer();
  if (integer != nullptr && integer->get() >= 0) return static_cast<uint64_t>(integer->get());
  Error(key, "give a whole number, not below 0");
  return std::nullopt;
}

std::optional<double> SpecSection::Number(const std::string& key) {
  const toml::node* node = Find(key);
  if (node == nullptr) return std::nullopt;
  if (node->is_number()) return node->value<double>();
  Error(key, "give a number");
  return std::nullopt;
}

std::optional<uint64_t> SpecSection::Bytes(const std::string& key) {
  const std::optional<std::string> text = TextOrNumber(key);
  if (!text) return std::nullopt;
  const absl::StatusOr<uint64_t> bytes = ParseBytes(*text);
  if (bytes.ok()) return *bytes;
  Error(key, bytes.status().message());
  return std::nullopt;
}

std::optional<std::vector<std::string>> SpecSection::Texts(const std::string& key, bool numbers) {
  const toml::node* node = Find(key);
  if (node == nullptr) return std::nullopt;
  std::vector<std::string> texts;
  if (std::optional<std::string> one = AsText(*node, numbers)) return std::vector{*one};
  const auto* list = node->as_array();
  bool good = list != nullptr && !list->empty();
  for (size_t i = 0; good && i < list->size(); ++i) {
    const std::optional<std::string> text = AsText((*list)[i], numbers);
    good = text.has_value();
    if (good) texts.push_back(*text);
  }
  if (good) return texts;
  Error(key, numbers ? "give a list such as [50, 25], which is not empty"
                     : "give a list of texts such as [\"one\", \"two\"], which is not empty");
  return std::nullopt;
}

std::vector<SpecSection> SpecSection::Sections(const std::string& key) {
  const toml::node* node = Find(key);
  std::vector<SpecSection> sections;
  if (node == nullptr) return sections;
  if (const auto* table = node->as_table()) {
    sections.emplace_back(table, key, &errors_);
  } else if (node->is_array_of_tables()) {
    for (const toml::node& element : *node->as_array()) {
      sections.emplace_back(element.as_table(), key, &errors_);
    }
  } else {
    Error(key, absl::StrCat("give a table: [", key, "] on a line of its own"));
  }
  return sections;
}

std::vector<std::string> SpecSection::Keys() const {
  std::vector<std::string> keys;
  for (const auto& [key, node] : table_) keys.emplace_back(key.str());
  return keys;
}

void SpecSection::FinishReading() {
  for (const auto& [key, node] : table_) {
    if (read_.count(std::string(key.str())) > 0) continue;
    const std::string name = std::string(key.str());
    errors_.Add(key.source(), name_.empty() ? name : absl::StrCat(name_, ".", name),
                absl::StrCat("unknown key; known here are ", absl::StrJoin(read_, ", ")));
  }
}

}  // namespace faultline::experiment
