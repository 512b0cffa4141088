// SPDX-License-Identifier: Apache-2.0
#include "client/attach/json_text_splitter.h"

namespace faultline {
namespace {

constexpr char kWhiteSpace[] = " \t\r\n";

}  // namespace

void JsonTextSplitter::Append(const char* bytes, size_t size) { buffer_.append(bytes, size); }

JsonTextSplitter::Result JsonTextSplitter::Next(std::string* text) {
  if (scanned_ == 0) {
    buffer_.erase(0, buffer_.find_first_not_of(kWhiteSpace));
    if (buffer_.empty()) return Result::kNeedMore;
    if (buffer_[0] != '{' && buffer_[0] != '[') return Result::kNotJson;
  }
  for (; scanned_ < buffer_.size(); ++scanned_) {
    if (scanned_ == max_text_bytes_) return Result::kTooLong;
    const char c = buffer_[scanned_];
    if (in_string_) {
      if (escaped_) {
        escaped_ = false;
      } else if (c == '\\') {
        escaped_ = true;
      } else if (c == '"') {
        in_string_ = false;
      }
      continue;
    }
    if (c == '"') {
      in_string_ = true;
    } else if (c == '{' || c == '[') {
      ++depth_;
    } else if (c == '}' || c == ']') {
      if (--depth_ > 0) continue;
      text->assign(buffer_, 0, scanned_ + 1);
      buffer_.erase(0, scanned_ + 1);
      scanned_ = 0;
      return Result::kText;
    }
  }
  return Result::kNeedMore;
}

}  // namespace faultline
