// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_STORAGE_FILE_PAGE_STORE_H_
#define FAULTLINE_STORAGE_FILE_PAGE_STORE_H_

#include <absl/status/statusor.h>

#include <memory>
#include <string>

#include "storage/page_store.h"

namespace faultline {

// Serves the raw image `path` (a file or a block device) in place, read-only, with the size that it
// has now. Holes and pages of zeros are pages that the store does not hold. Nobody may write the
// image meanwhile; if it gets shorter, reads of what is missing say DATA_LOSS. Errors as for
// OpenPageStore(); INVALID_ARGUMENT for an empty image.
absl::StatusOr<std::unique_ptr<PageStore>> OpenFilePageStore(const std::string& path);

}  // namespace faultline

#endif  // FAULTLINE_STORAGE_FILE_PAGE_STORE_H_
