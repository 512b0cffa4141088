// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_SOURCE_WORKING_SETS_H_
#define FAULTLINE_CLIENT_SOURCE_WORKING_SETS_H_

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>
#include <absl/time/time.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "proto/mutex.h"
#include "proto/working_set.h"

namespace faultline {

// Where the working sets of volumes are kept between the runs of a program. Thread-safe.
class WorkingSets {
 public:
  virtual ~WorkingSets() = default;
  // What earlier runs have asked for; empty where nothing is known. Blocks, until `deadline` at
  // most.
  virtual absl::StatusOr<WorkingSet> Get(absl::string_view volume, absl::Time deadline) = 0;
  // Adds `pages` to it, some time later. Never blocks.
  virtual void Keep(std::string volume, WorkingSet pages) = 0;
};

// Records the pages that faults ask for, of one process and the children that it forks, and hands
// them on when the last of these is gone. Thread-safe.
class WorkingSetRecorder {
 public:
  using OnEnd = std::function<void(WorkingSet pages)>;

  // `pages` is empty, made by WorkingSet::Create(). `on_end` is called by the destructor, unless
  // nothing was recorded.
  WorkingSetRecorder(WorkingSet pages, OnEnd on_end)
      : on_end_(std::move(on_end)), pages_(std::move(pages)) {}
  ~WorkingSetRecorder() {
    MutexLock lock(mu_);
    if (!pages_.pages().empty()) on_end_(std::move(pages_));
  }
  WorkingSetRecorder(const WorkingSetRecorder&) = delete;
  WorkingSetRecorder& operator=(const WorkingSetRecorder&) = delete;

  // Allocates nothing. REQUIRES: the volume has `page`.
  void Record(PageIndex page) {
    MutexLock lock(mu_);
    pages_.Insert(page);
  }

 private:
  const OnEnd on_end_;
  Mutex mu_;
  WorkingSet pages_ ABSL_GUARDED_BY(mu_);
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_SOURCE_WORKING_SETS_H_
