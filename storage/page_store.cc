// SPDX-License-Identifier: Apache-2.0
#include "storage/page_store.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/strip.h>

#include "storage/file_page_store.h"
#include "storage/memory_page_store.h"
#ifdef FAULTLINE_RADOS
#include "storage/rados_page_store.h"
#endif
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
  if (absl::ConsumePrefix(&path, "rados:")) {
#ifdef FAULTLINE_RADOS
    return OpenRadosPageStore(path, options);
#else
    return absl::UnimplementedError(
        absl::StrCat("the store ", spec,
                     ": this program was built without RADOS; build it where "
                     "librados-dev and libradospp-dev are installed"));
#endif
  }
  return absl::InvalidArgumentError(
      absl::StrCat("unknown store \"", spec,
                   "\"; known are rocksdb:DIR, memory:, file:PATH and "
                   "rados:POOL[/NAMESPACE]"));
}

}  // namespace faultline
