// SPDX-License-Identifier: Apache-2.0
//
// What QEMU sends: any bytes, in any pieces, give the same messages; none of them crashes.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "client/attach/json_text_splitter.h"
#include "client/vm/qmp_message.h"

namespace {

using faultline::JsonTextSplitter;
using faultline::QmpMessage;

// The texts of `stream`, which arrives in pieces of `piece` bytes.
std::vector<std::string> Split(const std::string& stream, size_t piece) {
  JsonTextSplitter splitter(4096);
  std::vector<std::string> texts;
  for (size_t at = 0; at < stream.size(); at += piece) {
    const std::string part = stream.substr(at, piece);
    splitter.Append(part.data(), part.size());
    std::string text;
    while (splitter.Next(&text) == JsonTextSplitter::Result::kText) texts.push_back(text);
  }
  return texts;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string stream(reinterpret_cast<const char*>(data + 1), size - 1);
  std::vector<std::string> texts = Split(stream, 1 + data[0] % 64);
  if (texts != Split(stream, stream.size() + 1)) abort();
  texts.push_back(stream);  // the parser may not rely on the splitter
  for (const std::string& text : texts) {
    const auto message = faultline::ParseQmpMessage(text);
    if (message.ok() && message->kind == QmpMessage::Kind::kEvent && message->name.empty()) abort();
  }
  return 0;
}
