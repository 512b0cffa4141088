// SPDX-License-Identifier: Apache-2.0
//
// Fields of protobuf messages, written by hand by who leaves a message's pages where they are. All
// our tags are of one byte, and a number that is zero is left out. Thread-safe.
#ifndef FAULTLINE_PROTO_WIRE_FIELD_H_
#define FAULTLINE_PROTO_WIRE_FIELD_H_

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/wire_format_lite.h>

#include <cstddef>
#include <cstdint>

namespace faultline {

inline size_t VarintFieldSize(uint64_t value) {
  return value == 0 ? 0 : 1 + google::protobuf::io::CodedOutputStream::VarintSize64(value);
}

inline uint8_t* WriteVarintField(int field, uint64_t value, uint8_t* out) {
  using google::protobuf::internal::WireFormatLite;
  using google::protobuf::io::CodedOutputStream;
  if (value == 0) return out;
  out = CodedOutputStream::WriteTagToArray(
      WireFormatLite::MakeTag(field, WireFormatLite::WIRETYPE_VARINT), out);
  return CodedOutputStream::WriteVarint64ToArray(value, out);
}

// What stands in front of `size` bytes of a field.
inline size_t BytesHeaderSize(size_t size) {
  return 1 + google::protobuf::io::CodedOutputStream::VarintSize64(size);
}

inline uint8_t* WriteBytesHeader(int field, size_t size, uint8_t* out) {
  using google::protobuf::internal::WireFormatLite;
  using google::protobuf::io::CodedOutputStream;
  out = CodedOutputStream::WriteTagToArray(
      WireFormatLite::MakeTag(field, WireFormatLite::WIRETYPE_LENGTH_DELIMITED), out);
  return CodedOutputStream::WriteVarint64ToArray(size, out);
}

}  // namespace faultline

#endif  // FAULTLINE_PROTO_WIRE_FIELD_H_
