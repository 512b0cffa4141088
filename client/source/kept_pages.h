// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_SOURCE_KEPT_PAGES_H_
#define FAULTLINE_CLIENT_SOURCE_KEPT_PAGES_H_

#include <cstddef>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "client/source/page_sink.h"

namespace faultline {

// A copy of the pages of a write, for a sink that passes them on after Write has returned.
class KeptPages {
 public:
  explicit KeptPages(std::span<const PageToWrite> pages)
      : pages_(pages.begin(), pages.end()), bytes_(new std::byte[pages.size() * kPageSize]) {
    std::byte* at = bytes_.get();
    for (PageToWrite& page : pages_) {
      if (page.bytes == nullptr) continue;
      memcpy(at, page.bytes, kPageSize);
      page.bytes = at;
      at += kPageSize;
    }
  }

  std::span<const PageToWrite> pages() const { return pages_; }

 private:
  std::vector<PageToWrite> pages_;
  std::unique_ptr<std::byte[]> bytes_;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_SOURCE_KEPT_PAGES_H_
