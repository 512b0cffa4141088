// SPDX-License-Identifier: Apache-2.0
//
// A store in Ceph RADOS: "rados:POOL[/NAMESPACE]". The pool replicates, recovers and scrubs; this
// lays pages out in it. Any number of processes may have it open at the same time.
//
//   store            all metadata, its version, and which layers are being deleted
//   w.VOLUME         the lock of the process that writes to a volume, and its epoch
//   l.LAYER          which extents a layer has: a bitmap for each GiB
//   d.LAYER.EXTENT   64 neighbouring pages (rados_extent.h)
//
// Write     One operation for each extent, all at the same time. Each is atomic, and acknowledged
//           when it is on the disks of every replica that is up; so whatever Durability asks for, a
//           write is durable. A new extent is in its layer's bitmap before it is written.
// Owner     A volume's writable layer is written by its owner alone, on a connection of its own.
//           Own() takes the lock; where another process holds it, that one's connection is
//           blocklisted, and every OSD told so, before the lock is broken. From then on OSDs refuse
//           what it sends, reads as well, to extents that nobody else has touched, too, and also
//           after it was stopped for long (until kFenceSeconds have passed). Besides, each of its
//           changes is conditional on the epoch in its object. Owners of whatever volume take
//           theirs from one count, as layers may come to other volumes.
// Metadata  A change is conditional on the version that was read, so none overwrites another one.
//           Whoever takes a volume changes the version once more, so that what the owner before had
//           in mind to do fails, too. A change is acknowledged when no other process holds a lease
//           on how it was before (rados_meta.h).
// Reading   The owner knows which extents there are, and caches their pages (rados_page_cache.h);
// an
//           answer that it gives out of that alone is given only where it holds a lease
//           (rados_lease.h), or the pool has answered it since. Everybody else asks the pool, and
//           remembers and caches only what is frozen. Who is not the owner, or has read in lower
//           layers, which the next owner may delete, asks for the version behind that (volume.h),
//           unless the lease says it: so a read sees all that was acknowledged before it began, by
//           whatever process.
// In doubt  Operations never time out: while too few replicas are up, they wait. An operation that
//           timed out would still be carried out later, and could overtake a newer one.
//
// Snapshots and clones are layers of volume.h here as in any store, so none of RADOS's own are
// made.
//
// What differs from other stores: a Write() of pages in several extents may be applied in part
// where it fails, or where its process ends before it has returned; and a process that is not the
// owner may see one that is under way in part.
#ifndef FAULTLINE_STORAGE_RADOS_PAGE_STORE_H_
#define FAULTLINE_STORAGE_RADOS_PAGE_STORE_H_

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <memory>

#include "storage/page_store.h"

namespace faultline {

// `location` is POOL[/NAMESPACE]. Errors as OpenPageStore();
// NOT_FOUND for a pool or configuration that is not there, UNAVAILABLE where the cluster does not
// answer within half a minute.
absl::StatusOr<std::unique_ptr<PageStore>> OpenRadosPageStore(absl::string_view location,
                                                              const PageStoreOptions& options);

}  // namespace faultline

#endif  // FAULTLINE_STORAGE_RADOS_PAGE_STORE_H_
