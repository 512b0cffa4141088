// SPDX-License-Identifier: Apache-2.0
//
// How a working set is kept in a PageStore: in a layer of its own. Page i of that layer is chunk i
// of the set (see page_set.h); empty chunks are left out. Behind the last possible one follows the
// order of the first pages: 512 to a page, each as the number of the page and 1, in 64 bits; 0 is
// the end. All are encoded and checksummed like any page.
// So a set costs nothing at start-up, is written and deleted by the rules of pages, and counts as
// one small layer where the disk is full.
#ifndef FAULTLINE_STORAGE_WORKING_SET_LAYER_H_
#define FAULTLINE_STORAGE_WORKING_SET_LAYER_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "proto/working_set.h"
#include "storage/page_store.h"

namespace faultline {

// The set in `layer`; that of one moment with regard to WriteWorkingSet(). DATA_LOSS where it is
// damaged; else the errors of PageStore and of WorkingSet::Create().
absl::StatusOr<WorkingSet> ReadWorkingSet(PageStore& store, LayerId layer, PageCount volume_size);

// Makes `layer` hold `set`: all of it, or it stays as it was. Durable on OK.
// REQUIRES: `set` has every page of the set that is there.
absl::Status WriteWorkingSet(PageStore& store, LayerId layer, const WorkingSet& set);

}  // namespace faultline

#endif  // FAULTLINE_STORAGE_WORKING_SET_LAYER_H_
