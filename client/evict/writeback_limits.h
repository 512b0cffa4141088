// SPDX-License-Identifier: Apache-2.0
//
// How evicted and flushed pages are taken and written: the same for both.
#ifndef FAULTLINE_CLIENT_EVICT_WRITEBACK_LIMITS_H_
#define FAULTLINE_CLIENT_EVICT_WRITEBACK_LIMITS_H_

#include <absl/time/time.h>

#include <chrono>

#include "client/evict/page_extractor.h"
#include "proto/page.h"

namespace faultline {

inline constexpr PageCount kBatch{PageExtractor::kMaxBatch};
inline constexpr auto kWriteTimeout = absl::Seconds(30);
inline constexpr auto kFirstRetry = std::chrono::milliseconds(20);
inline constexpr auto kLastRetry = std::chrono::seconds(2);
// Until the events were read that hold an extraction off.
inline constexpr auto kChangingPause = std::chrono::microseconds(200);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_EVICT_WRITEBACK_LIMITS_H_
