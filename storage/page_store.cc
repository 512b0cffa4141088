// SPDX-License-Identifier: Apache-2.0
#include "storage/page_store.h"

#include <absl/strings/str_cat.h>

#include "storage/memory_page_store.h"

namespace faultline {

absl::StatusOr<std::unique_ptr<PageStore>> OpenPageStore(absl::string_view spec,
                                                         const PageStoreOptions& options) {
  (void)options;
  if (spec == "memory:") return NewMemoryPageStore();
  return absl::InvalidArgumentError(
      absl::StrCat("unknown store \"", spec, "\"; known are rocksdb:DIR, memory: and file:PATH"));
}

}  // namespace faultline
