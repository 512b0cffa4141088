// SPDX-License-Identifier: Apache-2.0
#include "client/remote/server_working_sets.h"

#include <absl/strings/str_cat.h>
#include <absl/time/clock.h>
#include <pthread.h>

#include <algorithm>
#include <optional>

#include "proto/log.h"

namespace faultline {
namespace {

// A server that does not answer in this time does not get a set; nor do those that wait behind it
// hold up the agent's end for longer.
constexpr absl::Duration kMergeTimeout = absl::Seconds(5);

}  // namespace

ServerWorkingSets::ServerWorkingSets(PageServer* server) : server_(server) {
  thread_ = std::thread([this] { Run(); });
  pthread_setname_np(thread_.native_handle(), "fl-working-set");
}

ServerWorkingSets::~ServerWorkingSets() {
  {
    MutexLock lock(mu_);
    stopping_ = true;
    changed_.SignalAll();
  }
  thread_.join();
}

absl::StatusOr<WorkingSet> ServerWorkingSets::Get(absl::string_view volume, absl::Time deadline) {
  return server_->GetWorkingSet(volume, deadline);
}

void ServerWorkingSets::Keep(std::string volume, WorkingSet pages) {
  MutexLock lock(mu_);
  waiting_.emplace_back(std::move(volume), std::move(pages));
  changed_.SignalAll();
}

void ServerWorkingSets::Run() {
  absl::Time last_deadline = absl::InfiniteFuture();
  for (;;) {
    std::string volume;
    std::optional<WorkingSet> pages;
    {
      MutexLock lock(mu_);
      while (waiting_.empty() && !stopping_) changed_.Wait(mu_);
      if (stopping_) last_deadline = std::min(last_deadline, absl::Now() + kMergeTimeout);
      if (waiting_.empty()) return;
      volume = std::move(waiting_.front().first);
      pages = std::move(waiting_.front().second);
      waiting_.pop_front();
    }
    const absl::Status status = server_->MergeWorkingSet(
        volume, *pages, std::min(last_deadline, absl::Now() + kMergeTimeout));
    if (status.ok()) {
      LogInfo(absl::StrCat("working set of volume ", volume, ": ", pages->pages().count().raw(),
                           " pages of this run were added"));
    } else {
      LogWarning(absl::StrCat("working set of volume ", volume, ", ", pages->pages().count().raw(),
                              " pages, is lost: ", status.message()));
    }
  }
}

}  // namespace faultline
