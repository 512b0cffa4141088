// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_SIMULATE_ACCESS_H_
#define FAULTLINE_CLIENT_SIMULATE_ACCESS_H_

#include <cstdint>
#include <vector>

#include "proto/page.h"

namespace faultline {

enum class AccessKind : uint8_t {
  kRead,
  kWrite,
  kDiscard,  // no access: the page reads as zeros from here on
};

// What a program does to one page of its memory. 8 bytes, for there are many.
class Access {
 public:
  Access(PageIndex page, AccessKind kind)
      : page_(page.raw() & (kMaxVolumePages - 1)), kind_(static_cast<uint8_t>(kind)) {}

  PageIndex page() const { return PageIndex(page_); }
  AccessKind kind() const { return static_cast<AccessKind>(kind_); }

  friend bool operator==(const Access&, const Access&) = default;

 private:
  uint64_t page_ : 40;
  uint64_t kind_ : 8;
};
static_assert(sizeof(Access) == 8);

struct AccessSequence {
  std::vector<Access> accesses;
  PageCount volume;  // every page is one of its
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_SIMULATE_ACCESS_H_
