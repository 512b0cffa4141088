// SPDX-License-Identifier: Apache-2.0
//
// JsonTextSplitter: finds where each JSON text of a byte stream ends. A stream may deliver a text
// in any pieces, and several at once. The standard library only: the C library uses it too.
#ifndef FAULTLINE_CLIENT_ATTACH_JSON_TEXT_SPLITTER_H_
#define FAULTLINE_CLIENT_ATTACH_JSON_TEXT_SPLITTER_H_

#include <cstddef>
#include <string>

namespace faultline {

// Takes objects and arrays, with white space between them, and counts their brackets; whether what
// stands between them is JSON is the parser's matter. Not thread-safe.
class JsonTextSplitter {
 public:
  enum class Result {
    kText,      // one whole text
    kNeedMore,  // the text that has begun, if any, goes on in bytes that have not come yet
    kNotJson,  // what comes next is neither an object nor an array; the stream is of no further use
    kTooLong,  // the text that has begun is longer than the limit; likewise
  };

  explicit JsonTextSplitter(size_t max_text_bytes) : max_text_bytes_(max_text_bytes) {}

  void Append(const char* bytes, size_t size);

  // Moves the next whole text to `text`; leaves it alone for any other result.
  Result Next(std::string* text);

  // The first byte of the text that has begun and is not whole; 0 where none has.
  char begun() const { return scanned_ == 0 ? '\0' : buffer_[0]; }
  // Bytes of it so far.
  size_t begun_bytes() const { return scanned_; }

 private:
  const size_t max_text_bytes_;
  std::string buffer_;  // begins with a text, once Next() has skipped the white space before it
  size_t scanned_ = 0;  // bytes of buffer_ that the states below account for
  size_t depth_ = 0;    // brackets open
  bool in_string_ = false;
  bool escaped_ = false;  // the last byte was a backslash inside a string
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_ATTACH_JSON_TEXT_SPLITTER_H_
