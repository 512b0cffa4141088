// SPDX-License-Identifier: Apache-2.0
//
// A page server's answer to fetches, of any bytes and in any pieces, as an agent takes it: what the
// generated parser makes of it is what ours makes of it; where it is cut changes nothing; and pages
// are handed out only as they were asked for, each byte of them in what was received.
//
// An input is {how the message is made, 1 byte} {where it is cut, 2 bytes} {the calls: 3 times
// first page and count, 1 byte each} {message}.
#include <google/protobuf/stubs/logging.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "client/remote/fetch_response.h"
#include "client/remote/fetch_rpc.h"
#include "proto/page_codec.h"

namespace faultline {
namespace {

constexpr size_t kCalls = 3;
constexpr size_t kHeadBytes = 3 + 2 * kCalls;
constexpr uint64_t kMaxPages = 24;  // that are made for one message
// How a message is made.
constexpr uint8_t kWithPages = 1, kCallsOfItsRuns = 2, kOneCall = 4;

void Check(bool holds) {
  if (!holds) abort();
}

void CheckSame(const FetchResponseView& view, const rpc::FetchResponse& response) {
  Check(view.request_id == response.request_id() && view.code == response.code());
  Check(view.message == response.message());
  Check(view.server_ns == response.server_ns() && view.store_ns == response.store_ns());
  Check(view.zeros_beyond == response.zeros_beyond());
  Check(view.pages == response.batch().pages() && view.pages_beyond == 0);
  Check(view.runs.size() == static_cast<size_t>(response.batch().runs_size()));
  for (size_t i = 0; i < view.runs.size(); ++i) {
    const rpc::PageRun& run = response.batch().runs(static_cast<int>(i));
    Check(view.runs[i].first == run.first() && view.runs[i].count == run.count());
    Check(view.runs[i].kind == run.kind());
  }
}

void CheckAgainstGenerated(const std::string& bytes, size_t cut) {
  FetchResponseView view;
  const bool ours = ParseFetchResponse(bytes, &view).ok();
  rpc::FetchResponse response;
  if (response.ParseFromString(bytes)) {
    Check(ours);
    CheckSame(view, response);
  }  // ours may take what the other refuses: texts that are not UTF-8
  // What is not there yet can only be of the pages.
  const std::string front = bytes.substr(0, cut);
  FetchResponseView of_front;
  if (ParseFetchResponse(front, &of_front, bytes.size() - cut).ok()) {
    Check(ours && of_front.request_id == view.request_id && of_front.code == view.code);
    Check(of_front.message == view.message && of_front.runs.size() == view.runs.size());
    if (of_front.pages_beyond > 0) {
      Check(of_front.pages_beyond == bytes.size() - cut);
      Check(of_front.pages.size() + of_front.pages_beyond == view.pages.size());
    }
    Check(of_front.pages == view.pages.substr(0, of_front.pages.size()));
  }
}

// The payload's bytes become the content of the pages that the runs name: nobody guesses checksums.
std::string WithPages(const std::string& bytes) {
  rpc::FetchResponse response;
  if (!response.ParseFromString(bytes)) return bytes;
  const std::string seed = response.batch().pages();
  std::string encoded;
  uint64_t left = kMaxPages;
  size_t at = 0;
  for (const rpc::PageRun& run : response.batch().runs()) {
    if (run.kind() == rpc::PageRun::ZERO) continue;
    for (uint64_t i = 0; i < run.count() && left > 0; ++i, --left) {
      std::string page(kPageSize, '\0');
      for (size_t j = 0; j < 8 && !seed.empty(); ++j) page[j * 512] = seed[at++ % seed.size()];
      EncodePage(PageIndex((run.first() + i) % kMaxVolumePages),
                 PageBytes(reinterpret_cast<const std::byte*>(page.data()), kPageSize),
                 static_cast<Codec>(1 + i % 3), &encoded);
    }
  }
  response.mutable_batch()->set_pages(std::move(encoded));
  return response.SerializeAsString();
}

// What becomes of `ranges` where the message arrives in pieces of these sizes, and one of the rest:
// for each its status and bytes.
std::vector<std::string> Deliver(const std::string& bytes, std::vector<size_t> pieces,
                                 const std::vector<PageRange>& ranges) {
  std::vector<grpc::Slice> slices;
  size_t at = 0;
  pieces.push_back(bytes.size());
  for (const size_t piece : pieces) {
    const size_t size = std::min(piece, bytes.size() - at);
    slices.emplace_back(bytes.data() + at, size);
    at += size;
  }
  FetchRpc::Received received;
  received.message = grpc::ByteBuffer(slices.data(), slices.size());
  if (!FetchRpc::Parse(&received).ok()) return {"no answer"};
  std::vector<std::string> ends(ranges.size(), "not called");
  std::vector<FetchRpc::Call> calls, again;
  for (size_t i = 0; i < ranges.size(); ++i) {
    FetchRpc::Call call{.volume_id = 1, .range = ranges[i], .deadline = absl::InfiniteFuture()};
    call.done = [&ends, i, range = ranges[i]](auto runs) {
      ends[i] = absl::StatusCodeToString(runs.status().code());
      if (!runs.ok()) return;
      PageIndex next = range.first;
      for (const FetchedRun& run : *runs) {
        Check(run.range.first == next && !run.range.empty());
        next = run.range.end();
        // Zeros behind what was asked for are told, and no bytes.
        Check(next <= range.end() || (run.bytes == nullptr && run.range.first == range.end()));
        if (run.bytes == nullptr) {
          ends[i] += "zeros " + std::to_string(run.range.count.raw());
        } else {
          ends[i].append(reinterpret_cast<const char*>(run.bytes), run.range.size_bytes());
        }
      }
      Check(next >= range.end() && next.raw() <= kMaxVolumePages);
    };
    calls.push_back(std::move(call));
  }
  FetchRpc::Deliver(&received, absl::MakeSpan(calls), &again);
  Check(again.size() <= ranges.size());
  for (const FetchRpc::Call& call : again) Check(call.alone);
  FetchRpc::Release(&received);
  return ends;
}

std::vector<PageRange> Ranges(const uint8_t* head, uint8_t how, const std::string& bytes) {
  std::vector<PageRange> ranges;
  FetchResponseView view;
  if ((how & kCallsOfItsRuns) != 0 && ParseFetchResponse(bytes, &view).ok()) {
    for (const FetchResponseView::Run& run : view.runs) {
      if (ranges.size() == kCalls || run.first >= kMaxVolumePages) break;
      const uint64_t count = std::min({run.count, kMaxPages, kMaxVolumePages - run.first});
      if (count > 0) ranges.push_back({PageIndex(run.first), PageCount(count)});
    }
  }
  for (size_t i = 0; ranges.empty() || (i < kCalls && (how & kCallsOfItsRuns) == 0); ++i) {
    ranges.push_back({PageIndex(head[2 * i]), PageCount(1 + head[2 * i + 1] % kMaxPages)});
  }
  if ((how & kOneCall) != 0) ranges.resize(1);
  return ranges;
}

}  // namespace
}  // namespace faultline

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace faultline;
  static const google::protobuf::LogSilencer silence;
  if (size < kHeadBytes) return 0;
  const uint8_t how = data[0];
  std::string bytes(reinterpret_cast<const char*>(data) + kHeadBytes, size - kHeadBytes);
  if ((how & kWithPages) != 0) bytes = WithPages(bytes);
  const size_t cut = (data[1] | size_t{data[2]} << 8) % (bytes.size() + 1);
  CheckAgainstGenerated(bytes, cut);
  const std::vector<PageRange> ranges = Ranges(data + 3, how, bytes);
  const std::vector<std::string> whole = Deliver(bytes, {}, ranges);
  Check(Deliver(bytes, {cut}, ranges) == whole);
  Check(Deliver(bytes, {cut, size_t{data[1]} * 16, data[2]}, ranges) == whole);
  return 0;
}
