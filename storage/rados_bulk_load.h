// SPDX-License-Identifier: Apache-2.0
//
// Loading a whole layer into RADOS: extents are written aside, several at a time, and belong to the
// layer from one operation on. Before they are written they are listed as loading, so that what a
// crash leaves is found and deleted with the layer.
#ifndef FAULTLINE_STORAGE_RADOS_BULK_LOAD_H_
#define FAULTLINE_STORAGE_RADOS_BULK_LOAD_H_

#include <atomic>
#include <memory>

#include "storage/page_store.h"
#include "storage/rados_client.h"
#include "storage/rados_layer.h"

namespace faultline {

// `client` must outlive the result.
std::unique_ptr<BulkLoad> StartRadosBulkLoad(RadosClient* client,
                                             std::shared_ptr<RadosLayer> layer);

// Removes the objects of `extents`, so many at the same time; those that are not there do no harm.
// CANCELLED once `stop` is set.
absl::Status RemoveExtents(RadosClient* client, LayerId layer, const ExtentSet& extents,
                           size_t at_a_time, const std::atomic<bool>* stop);

}  // namespace faultline

#endif  // FAULTLINE_STORAGE_RADOS_BULK_LOAD_H_
