// SPDX-License-Identifier: Apache-2.0
//
// FetchResponseView: an rpc::FetchResponse that stays where it was received. The generated parser
// would copy the pages, which on the way from the network to a target's memory is one copy in two.
#ifndef FAULTLINE_CLIENT_REMOTE_FETCH_RESPONSE_H_
#define FAULTLINE_CLIENT_REMOTE_FETCH_RESPONSE_H_

#include <absl/status/status.h>
#include <absl/strings/string_view.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "proto/pager.pb.h"

namespace faultline {

// Points into the bytes that it was parsed from. Names and defaults are those of the message.
struct FetchResponseView {
  struct Run {
    uint64_t first = 0;
    uint64_t count = 0;
    rpc::PageRun::Kind kind = rpc::PageRun::DATA;
  };

  // Back to an empty message; keeps its memory.
  void Clear() {
    request_id = 0;
    code = 0;
    message = {};
    server_ns = store_ns = zeros_beyond = 0;
    runs.clear();
    pages = {};
    pages_beyond = 0;
  }

  uint64_t request_id = 0;
  int32_t code = 0;
  absl::string_view message;  // not checked to be UTF-8
  uint64_t server_ns = 0, store_ns = 0, zeros_beyond = 0;
  std::vector<Run> runs;
  absl::string_view pages;
  size_t pages_beyond = 0;  // of the pages, bytes that follow `pages` in what was not parsed
};

// Overwrites `*view` with the message that `bytes`, an encoded rpc::FetchResponse, holds: what the
// generated parser makes of it, fields that are not known or come twice included. Thread-safe;
// takes no memory once `view->runs` has held as many.
//
// `beyond` more bytes of the message may follow somewhere else, if they are all of the pages; their
// number is then view->pages_beyond.
// DATA_LOSS where `bytes` is no such message; `*view` is then empty.
absl::Status ParseFetchResponse(absl::string_view bytes, FetchResponseView* view,
                                size_t beyond = 0);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_REMOTE_FETCH_RESPONSE_H_
