// SPDX-License-Identifier: Apache-2.0
//
// What a client wants written, checked before anything of it is stored. No gRPC.
#ifndef FAULTLINE_SERVER_WRITE_BATCH_H_
#define FAULTLINE_SERVER_WRITE_BATCH_H_

#include <absl/status/status.h>

#include "proto/pager.pb.h"
#include "storage/volume.h"

namespace faultline {

// Appends what `batch`, of a client that is not trusted, wants written to `*writes`, which points
// into it: pages and trims ascending, each page of them once, every page verified, and those of
// zeros as trims. DATA_LOSS where a page is damaged, or the payload does not hold exactly the pages
// of the runs; INVALID_ARGUMENT where a page stands twice. Thread-safe.
// REQUIRES: CountPages() accepts the runs; `*writes` is empty.
absl::Status CollectWrites(const rpc::PageBatch& batch, VolumeWrites* writes);

}  // namespace faultline

#endif  // FAULTLINE_SERVER_WRITE_BATCH_H_
