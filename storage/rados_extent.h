// SPDX-License-Identifier: Apache-2.0
//
// How 64 neighbouring pages lie in one object of RADOS:
//
//   0       a slot of 16 bytes for each page: the size of its encoded form, 2 bytes, little endian,
//           0 where the layer does not hold the page; then the first 12 bytes of that
//   4096    the rest of each page's encoded form, 4096 bytes apart
//
// So the slots are the map of what is there, a page is written without reading anything before, and
// what is large lies on blocks of the disk.
#ifndef FAULTLINE_STORAGE_RADOS_EXTENT_H_
#define FAULTLINE_STORAGE_RADOS_EXTENT_H_

#include <absl/functional/function_ref.h>
#include <absl/status/status.h>
#include <absl/strings/string_view.h>

#include <cstdint>
#include <string>
#include <vector>

#include "proto/page.h"
#include "storage/page_store.h"

#include <rados/librados.hpp>

namespace faultline {

inline constexpr uint64_t kExtentPages = 64;

// The position of an extent in its layer, counted from 0.
using ExtentIndex = uint64_t;

constexpr ExtentIndex ExtentOf(PageIndex page) { return page.raw() / kExtentPages; }
constexpr PageRange PagesOf(ExtentIndex extent) {
  return {PageIndex(extent * kExtentPages), PageCount(kExtentPages)};
}

std::string ExtentObject(LayerId layer, ExtentIndex extent);

// INVALID_ARGUMENT where there is no room for a page of that size.
absl::Status CheckEncodedSize(PageIndex page, absl::string_view encoded);

// Adds to `op` that `pages`, all in one extent, are there no more.
void ClearPages(PageRange pages, librados::ObjectWriteOperation* op);
// Adds to `op` that these are there. REQUIRES: all are of one extent, ascending.
void PutPages(const std::vector<const PageWrites::Put*>& puts, librados::ObjectWriteOperation* op);

// Pages of one extent that are read by one operation.
class ExtentRead {
 public:
  // REQUIRES: `pages` are in one extent, at least one.
  explicit ExtentRead(PageRange pages) : pages_(pages) {}

  PageRange pages() const { return pages_; }
  // Adds to `op` what is needed. This must outlive the operation.
  void Add(librados::ObjectReadOperation* op);
  // Calls `visit` for each page that is there. DATA_LOSS where it is not there whole.
  absl::Status Visit(PageStore::Visitor visit);

 private:
  const PageRange pages_;
  librados::bufferlist slots_, payloads_;
  int slots_result_ = 0, payloads_result_ = 0;
};

// What the pages of an extent take, in bytes, by its slots.
class ExtentSize {
 public:
  void Add(librados::ObjectReadOperation* op);
  uint64_t bytes();

 private:
  librados::bufferlist slots_;
  int result_ = 0;
};

}  // namespace faultline

#endif  // FAULTLINE_STORAGE_RADOS_EXTENT_H_
