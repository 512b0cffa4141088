// SPDX-License-Identifier: Apache-2.0
#include "storage/page_store.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/strip.h>

#include "storage/file_page_store.h"
#include "storage/memory_page_store.h"
#include "storage/rocksdb_page_store.h"

namespace faultline {

absl::StatusOr<std::unique_ptr<PageStore>> OpenPageStore(absl::string_view spec,
                                                         const PageStoreOptions& options) {
  absl::string_view path = spec;
  if (spec == "memory:") return NewMemoryPageStore();
  if (absl::ConsumePrefix(&path, "rocksdb:")) {
    return OpenRocksDbPageStore(std::string(path), options);
  }
  if (absl::ConsumePrefix(&path, "file:")) return OpenFilePageStore(std::string(path));
  return absl::InvalidArgumentError(
      absl::StrCat("unknown store \"", spec, "\"; known are rocksdb:DIR, memory: and file:PATH"));
}

}  // namespace faultline
