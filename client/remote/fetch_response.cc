// SPDX-License-Identifier: Apache-2.0
#include "client/remote/fetch_response.h"

#include <absl/strings/str_cat.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/wire_format_lite.h>

#include <limits>
#include <utility>

namespace faultline {
namespace {

using google::protobuf::internal::WireFormatLite;

// Walks the fields of one message. A field is first looked at by its tag and then read, as what the
// tag says, or skipped.
class FieldReader {
 public:
  // `beyond` more bytes of the message are not there. REQUIRES: all of it has at most INT_MAX.
  explicit FieldReader(absl::string_view bytes, size_t beyond = 0)
      : in_(reinterpret_cast<const uint8_t*>(bytes.data()), static_cast<int>(bytes.size())),
        beyond_(beyond) {}

  // The tag of the next field, or 0 where there is none.
  uint32_t Next() {
    constexpr int kMaxTagBytes = 5;  // of 32 bits; the stream would drop those beyond
    const int start = in_.CurrentPosition();
    const uint32_t tag = in_.ReadTag();
    return in_.CurrentPosition() - start <= kMaxTagBytes ? tag : 0;
  }
  // After Next() gave 0: whether that was the end of the message.
  bool AtEnd() { return in_.ConsumedEntireMessage() && beyond_ == 0; }

  bool Read(uint64_t* value) { return in_.ReadVarint64(value); }

  bool Read(absl::string_view* bytes) {
    int size;
    if (!in_.ReadVarintSizeAsInt(&size)) return false;
    const void* data;
    int left;
    in_.GetDirectBufferPointerInline(&data, &left);
    if (size > left) return false;
    *bytes = absl::string_view(static_cast<const char*>(data), static_cast<size_t>(size));
    return in_.Skip(size);
  }

  // As above, and the field may be the one that holds what is not there, `*missing` bytes.
  bool Read(absl::string_view* bytes, size_t* missing) {
    *missing = 0;
    if (beyond_ == 0) return Read(bytes);
    int size;
    if (!in_.ReadVarintSizeAsInt(&size)) return false;
    const void* data = nullptr;
    int left = 0;
    in_.GetDirectBufferPointerInline(&data, &left);
    if (size > left) {
      if (static_cast<size_t>(size - left) != beyond_) return false;
      *missing = std::exchange(beyond_, 0);
      size = left;
    }
    *bytes = absl::string_view(static_cast<const char*>(data), static_cast<size_t>(size));
    return in_.Skip(size);
  }

  bool Skip(uint32_t tag) {
    return WireFormatLite::GetTagFieldNumber(tag) != 0 && WireFormatLite::SkipField(&in_, tag);
  }

 private:
  google::protobuf::io::CodedInputStream in_;
  size_t beyond_;
};

constexpr uint32_t VarintTag(int field) {
  return WireFormatLite::MakeTag(field, WireFormatLite::WIRETYPE_VARINT);
}
constexpr uint32_t BytesTag(int field) {
  return WireFormatLite::MakeTag(field, WireFormatLite::WIRETYPE_LENGTH_DELIMITED);
}

bool ParseRun(absl::string_view bytes, FetchResponseView::Run* run) {
  FieldReader reader(bytes);
  while (const uint32_t tag = reader.Next()) {
    bool ok;
    uint64_t kind = 0;
    switch (tag) {
      case VarintTag(rpc::PageRun::kFirstFieldNumber):
        ok = reader.Read(&run->first);
        break;
      case VarintTag(rpc::PageRun::kCountFieldNumber):
        ok = reader.Read(&run->count);
        break;
      case VarintTag(rpc::PageRun::kKindFieldNumber):
        ok = reader.Read(&kind);
        run->kind = static_cast<rpc::PageRun::Kind>(static_cast<int32_t>(kind));
        break;
      default:
        ok = reader.Skip(tag);
    }
    if (!ok) return false;
  }
  return reader.AtEnd();
}

// A batch that comes twice is merged: its runs are those of both, its pages the last.
bool ParseBatch(absl::string_view bytes, size_t beyond, FetchResponseView* view) {
  FieldReader reader(bytes, beyond);
  while (const uint32_t tag = reader.Next()) {
    bool ok;
    absl::string_view run;
    switch (tag) {
      case BytesTag(rpc::PageBatch::kRunsFieldNumber):
        ok = reader.Read(&run) && ParseRun(run, &view->runs.emplace_back());
        break;
      case BytesTag(rpc::PageBatch::kPagesFieldNumber):
        ok = reader.Read(&view->pages, &view->pages_beyond);
        break;
      default:
        ok = reader.Skip(tag);
    }
    if (!ok) return false;
  }
  return reader.AtEnd();
}

bool ParseResponse(absl::string_view bytes, size_t beyond, FetchResponseView* view) {
  FieldReader reader(bytes, beyond);
  while (const uint32_t tag = reader.Next()) {
    bool ok;
    uint64_t code = 0;
    absl::string_view batch;
    size_t missing = 0;
    switch (tag) {
      case VarintTag(rpc::FetchResponse::kRequestIdFieldNumber):
        ok = reader.Read(&view->request_id);
        break;
      case VarintTag(rpc::FetchResponse::kCodeFieldNumber):
        ok = reader.Read(&code);
        view->code = static_cast<int32_t>(code);  // a negative one travels as 64 bits
        break;
      case VarintTag(rpc::FetchResponse::kServerNsFieldNumber):
        ok = reader.Read(&view->server_ns);
        break;
      case VarintTag(rpc::FetchResponse::kStoreNsFieldNumber):
        ok = reader.Read(&view->store_ns);
        break;
      case VarintTag(rpc::FetchResponse::kZerosBeyondFieldNumber):
        ok = reader.Read(&view->zeros_beyond);
        break;
      case BytesTag(rpc::FetchResponse::kMessageFieldNumber):
        ok = reader.Read(&view->message);
        break;
      case BytesTag(rpc::FetchResponse::kBatchFieldNumber):
        ok = reader.Read(&batch, &missing) && ParseBatch(batch, missing, view);
        break;
      default:
        ok = reader.Skip(tag);
    }
    if (!ok) return false;
  }
  return reader.AtEnd();
}

}  // namespace

absl::Status ParseFetchResponse(absl::string_view bytes, FetchResponseView* view, size_t beyond) {
  view->Clear();
  const size_t size = bytes.size() + beyond;
  if (size <= std::numeric_limits<int>::max() && ParseResponse(bytes, beyond, view)) {
    return absl::OkStatus();
  }
  view->Clear();
  return absl::DataLossError(absl::StrCat("a message of ", size, " bytes is no answer to a fetch"));
}

}  // namespace faultline
