// SPDX-License-Identifier: Apache-2.0
//
// A store in Ceph RADOS: "rados:POOL[/NAMESPACE]". The pool replicates, recovers and scrubs; this
// lays pages out in it, and sees to it that one process at a time changes them.
//
//   store            the owner's lock, the epoch, all metadata, and which layers are being deleted
//   l.LAYER          which extents a layer has: a bitmap for each GiB
//   d.LAYER.EXTENT   64 neighbouring pages (rados_extent.h)
//
// Write     One operation for each extent, all at the same time. Each is atomic, and acknowledged
//           when it is on the disks of every replica that is up; so whatever Durability asks for, a
//           write is durable. A new extent is in its layer's bitmap before it is written.
// Fencing   Opening makes this process the owner, whoever was that before. The lock on `store` is
//           taken; where another process holds it, its address is blocklisted first, and the OSDs
//           refuse what it sends from then on, to extents that nobody else has touched, too, and
//           also after it was stopped for long (until kFenceSeconds have passed). Besides, every
//           change is conditional on the epoch in its object, which each owner raises.
// In doubt  Operations never time out: while too few replicas are up, they wait. An operation that
//           timed out would still be carried out later, and could overtake a newer one.
//
// Snapshots and clones are layers of volume.h here as in any store, so none of RADOS's own are
// made.
//
// What differs from other stores: a Write() of pages in several extents may be applied in part
// where it fails, or where its process ends before it has returned.
#ifndef FAULTLINE_STORAGE_RADOS_PAGE_STORE_H_
#define FAULTLINE_STORAGE_RADOS_PAGE_STORE_H_

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <memory>

#include "storage/page_store.h"

namespace faultline {

// `location` is POOL[/NAMESPACE]. Every method of the result fails with UNAVAILABLE once another
// process has become the owner: for good, it has to be opened again. Errors as OpenPageStore();
// NOT_FOUND for a pool or configuration that is not there, UNAVAILABLE where the cluster does not
// answer within half a minute.
absl::StatusOr<std::unique_ptr<PageStore>> OpenRadosPageStore(absl::string_view location,
                                                              const PageStoreOptions& options);

}  // namespace faultline

#endif  // FAULTLINE_STORAGE_RADOS_PAGE_STORE_H_
