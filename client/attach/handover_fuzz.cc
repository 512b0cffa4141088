// SPDX-License-Identifier: Apache-2.0
//
// Feeds a stream to the splitter, in pieces whose sizes the input decides, and each text that it
// finds to the parser. The texts must not depend on where the stream was cut.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "client/attach/handover_message.h"
#include "client/attach/json_text_splitter.h"

namespace {

using faultline::JsonTextSplitter;

// Returns the texts, and how the stream ended.
std::vector<std::string> Split(const std::string& stream, size_t piece_bytes) {
  JsonTextSplitter splitter(4096);
  std::vector<std::string> texts;
  JsonTextSplitter::Result result = JsonTextSplitter::Result::kNeedMore;
  for (size_t at = 0; at < stream.size() && result == JsonTextSplitter::Result::kNeedMore;
       at += piece_bytes) {
    splitter.Append(stream.data() + at, std::min(piece_bytes, stream.size() - at));
    std::string text;
    while ((result = splitter.Next(&text)) == JsonTextSplitter::Result::kText) {
      texts.push_back(text);
    }
  }
  texts.push_back("result " + std::to_string(static_cast<int>(result)));
  return texts;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string stream(reinterpret_cast<const char*>(data + 1), size - 1);
  std::vector<std::string> texts = Split(stream, 1 + data[0] % 64);
  if (texts != Split(stream, stream.size() + 1)) abort();
  texts.pop_back();
  texts.push_back(stream);  // the parser may not rely on the splitter
  for (const std::string& text : texts) {
    const auto request = faultline::ParseHandover(text);
    if (!request.ok()) {
      faultline::ErrorReply(request.status().message());
      continue;
    }
    const bool has_mappings = request->kind == faultline::HandoverRequest::Kind::kAttach ||
                              request->kind == faultline::HandoverRequest::Kind::kFirecracker;
    if (has_mappings == request->mappings.empty()) abort();
    if (request->further_descriptors >= faultline::kMaxHandoverDescriptors) abort();
  }
  return 0;
}
