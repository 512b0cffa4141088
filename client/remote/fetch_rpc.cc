// SPDX-License-Identifier: Apache-2.0
#include "client/remote/fetch_rpc.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <span>

#include "client/remote/rpc_status.h"
#include "proto/page_codec.h"

namespace faultline {
namespace {

absl::string_view AsBytes(const grpc::Slice& slice) {
  return {reinterpret_cast<const char*>(slice.begin()), slice.size()};
}

// Walks the pages of a batch, one call after the other.
class BatchReader {
 public:
  explicit BatchReader(const FetchRpc::Received& received)
      : runs_(received.view.runs),
        payload_(received.view.pages),
        further_(absl::MakeConstSpan(received.parts).subspan(received.first_further)) {}

  // Decodes the next pages, which must be those of `range`, into received->runs. Single pages that
  // are stored raw stay where they are.
  absl::Status Read(PageRange range, FetchRpc::Received* received) {
    received->runs.clear();
    if (range.count.raw() > 1 && received->decoded.size() < range.size_bytes()) {
      received->decoded.resize(range.size_bytes());
    }
    for (PageIndex at = range.first; at < range.end();) {
      if (run_ == runs_.size()) return NotAskedFor(at, "ends before it");
      const FetchResponseView::Run& run = runs_[run_];
      if (run.first + used_ != at.raw() || used_ >= run.count) {
        return NotAskedFor(at, absl::StrCat("holds page ", run.first + used_, " instead"));
      }
      const PageCount left(run.count - used_);
      const PageRange part{at, std::min(left, range.end() - at)};
      if (run.kind == rpc::PageRun::ZERO) {
        received->runs.push_back({part, nullptr});
      } else if (absl::Status status = ReadData(part, range, received); !status.ok()) {
        return status;
      }
      at += part.count;
      used_ += part.count.raw();
      if (used_ == run.count) {
        ++run_;
        used_ = 0;
      }
    }
    return absl::OkStatus();
  }

  absl::Status CheckEnd() const {
    if (run_ == runs_.size() && payload_.empty() && further_.empty()) return absl::OkStatus();
    return absl::InternalError("the page server's answer holds more pages than were asked for");
  }

 private:
  static absl::Status NotAskedFor(PageIndex page, absl::string_view what) {
    return absl::InternalError(
        absl::StrCat("page ", page.raw(), " was asked for, but the page server's answer ", what));
  }

  absl::Status ReadData(PageRange part, PageRange range, FetchRpc::Received* received) {
    std::byte* const target =
        range.count.raw() == 1 ? nullptr
                               : received->decoded.data() + (part.first - range.first).in_bytes();
    const std::byte* first = target;
    for (PageIndex page = part.first; page < part.end(); ++page) {
      absl::StatusOr<absl::string_view> encoded = TakePage();
      if (!encoded.ok()) {
        return absl::DataLossError(
            absl::StrCat("page ", page.raw(), ": ", encoded.status().message()));
      }
      std::byte* const slot =
          target == nullptr ? scratch_.data() : target + (page - part.first).in_bytes();
      absl::StatusOr<PageBytes> bytes =
          DecodePage(page, *encoded, MutablePageBytes(slot, kPageSize));
      if (!bytes.ok()) return bytes.status();
      if (target == nullptr) {
        first = bytes->data();
      } else if (bytes->data() != slot) {
        memcpy(slot, bytes->data(), kPageSize);
      }
    }
    received->runs.push_back({part, first});
    return absl::OkStatus();
  }

  // The next page: where it was received, or in split_ if it came in several pieces.
  absl::StatusOr<absl::string_view> TakePage() {
    if (payload_.size() >= kMaxEncodedPageBytes || further_.empty()) {
      return TakeEncodedPage(&payload_);
    }
    size_t gathered = payload_.copy(split_.data(), split_.size());
    for (const grpc::Slice& piece : further_) {
      const size_t part = std::min(piece.size(), split_.size() - gathered);
      memcpy(split_.data() + gathered, piece.begin(), part);
      gathered += part;
      if (gathered == split_.size()) break;
    }
    absl::string_view rest(split_.data(), gathered);
    absl::StatusOr<absl::string_view> encoded = TakeEncodedPage(&rest);
    if (encoded.ok()) Skip(encoded->size());
    return encoded;
  }

  void Skip(size_t bytes) {
    while (bytes >= payload_.size() && !further_.empty()) {
      bytes -= payload_.size();
      payload_ = AsBytes(further_.front());
      further_.remove_prefix(1);
    }
    payload_.remove_prefix(bytes);
  }

  const absl::Span<const FetchResponseView::Run> runs_;
  absl::string_view payload_;  // what follows in this piece
  absl::Span<const grpc::Slice> further_;
  size_t run_ = 0;
  uint64_t used_ = 0;  // pages of that run
  alignas(64) std::array<std::byte, kPageSize> scratch_;
  std::array<char, kMaxEncodedPageBytes> split_;
};

// What the answer tells of pages behind those that were asked for.
void AddHole(PageIndex end, FetchRpc::Received* received) {
  const uint64_t most = kMaxVolumePages - std::min(end.raw(), kMaxVolumePages);
  const PageCount zeros(std::min(received->view.zeros_beyond, most));
  if (zeros > PageCount(0)) received->runs.push_back({{end, zeros}, nullptr});
}

}  // namespace

std::unique_ptr<grpc::ClientAsyncReaderWriter<FetchRpc::Request, FetchRpc::Response>>
FetchRpc::Start(Stub* stub, grpc::ClientContext* context, grpc::CompletionQueue* queue, void* tag) {
  auto rpc = stub->PrepareCall(context, "/faultline.rpc.PageService/Fetch", queue);
  rpc->StartCall(tag);
  return rpc;
}

size_t FetchRpc::Combine(const CallQueue<Call>& waiting, bool* grows) {
  const Call& first = waiting.front();
  *grows = false;
  if (first.alone) return 1;
  uint64_t pages = first.range.count.raw();
  size_t n = 1;
  for (; n < waiting.size(); ++n) {
    const Call& call = waiting[n];
    pages += call.range.count.raw();
    if (call.alone || call.volume_id != first.volume_id || pages > kCombinedPages) return n;
  }
  *grows = pages < kCombinedPages;
  return n;
}

void FetchRpc::Fill(absl::Span<const Call> calls, uint64_t id, Request* request) {
  request->Clear();
  request->set_request_id(id);
  request->set_volume_id(calls.front().volume_id);
  for (const Call& call : calls) {
    rpc::PageRun* run = request->add_runs();
    run->set_first(call.range.first.raw());
    run->set_count(call.range.count.raw());
  }
}

absl::StatusOr<uint64_t> FetchRpc::Parse(Received* received) {
  if (!received->message.Dump(&received->parts).ok()) {
    return absl::DataLossError("a message cannot be decompressed");
  }
  // An empty piece at the end would be taken for pages that nobody has asked for.
  std::erase_if(received->parts, [](const grpc::Slice& part) { return part.size() == 0; });
  if (!received->parts.empty()) {
    size_t beyond = 0;
    for (const grpc::Slice& part : absl::MakeConstSpan(received->parts).subspan(1)) {
      beyond += part.size();
    }
    received->first_further = 1;
    if (ParseFetchResponse(AsBytes(received->parts[0]), &received->view, beyond).ok()) {
      return received->view.request_id;
    }
  }
  // More than pages is in another piece, or it is no answer.
  received->joined.clear();
  for (const grpc::Slice& part : received->parts) {
    received->joined.append(reinterpret_cast<const char*>(part.begin()), part.size());
  }
  received->first_further = received->parts.size();
  if (absl::Status status = ParseFetchResponse(received->joined, &received->view); !status.ok()) {
    return status;
  }
  return received->view.request_id;
}

void FetchRpc::Release(Received* received) {
  received->view.Clear();
  received->parts.clear();
  received->first_further = 0;
  received->message.Clear();
}

void FetchRpc::NoteStages(const FetchResponseView& response, const Call& call) {
  if (call.stages == nullptr) return;
  const std::chrono::nanoseconds server(response.server_ns);
  call.stages->wire.Record(SteadyClock::now() - call.asked - server);
  call.stages->server.Record(server);
  call.stages->store.Record(response.store_ns);
}

void FetchRpc::Deliver(Received* received, absl::Span<Call> calls, std::vector<Call>* again) {
  const FetchResponseView& response = received->view;
  absl::Status broken = ResponseStatus(response.code, response.message);
  BatchReader reader(*received);
  for (size_t i = 0; i < calls.size(); ++i) {
    Call& call = calls[i];
    absl::Status status = broken;
    if (status.ok()) {
      NoteStages(response, call);
      status = reader.Read(call.range, received);
      if (status.ok() && i + 1 == calls.size()) {
        status = reader.CheckEnd();
        AddHole(call.range.end(), received);
      }
      // Where one call's pages are not all there, those of the next cannot be found.
      broken = status;
    }
    if (call.done == nullptr) continue;
    if (status.ok()) {
      std::move(call.done)(std::span<const FetchedRun>(received->runs));
    } else if (calls.size() > 1 && !IsRetryable(status)) {
      call.alone = true;
      again->push_back(std::move(call));
    } else {
      call.End(std::move(status));
    }
  }
}

}  // namespace faultline
