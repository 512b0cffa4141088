// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_STORAGE_MEMORY_PAGE_STORE_H_
#define FAULTLINE_STORAGE_MEMORY_PAGE_STORE_H_

#include <memory>

#include "storage/page_store.h"

namespace faultline {

// A store whose pages are lost with the process: for tests, and for content that can be had again.
std::unique_ptr<PageStore> NewMemoryPageStore();

}  // namespace faultline

#endif  // FAULTLINE_STORAGE_MEMORY_PAGE_STORE_H_
