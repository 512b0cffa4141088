// SPDX-License-Identifier: Apache-2.0
#include "client/evict/plugin_policy.h"

#include <absl/strings/str_cat.h>
#include <dlfcn.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <utility>
#include <vector>

#include "client/evict/faultline_policy.h"
#include "client/evict/page_queues.h"
#include "proto/log.h"

namespace faultline {
namespace {

using Functions = faultline_policy_functions;

struct CloseLibrary {
  void operator()(void* library) const { dlclose(library); }
};
using Library = std::unique_ptr<void, CloseLibrary>;

struct DestroyPolicy {
  const Functions* functions;
  void operator()(void* policy) const { functions->destroy(policy); }
};
using Created = std::unique_ptr<void, DestroyPolicy>;

class PluginPolicy final : public EvictionPolicy {
 public:
  PluginPolicy(std::string path, Library library, Created policy)
      : path_(std::move(path)),
        library_(std::move(library)),
        policy_(std::move(policy)),
        functions_(*policy_.get_deleter().functions) {}

  void OnFill(PageIndex page, FillCause cause) override {
    if (pages_.Find(page)) return;
    pages_.Push(page, kResident);
    functions_.on_fill(policy_.get(), page.raw(),
                       cause == FillCause::kDemand ? FAULTLINE_FILL_DEMAND : FAULTLINE_FILL_AHEAD);
  }

  void OnWrite(PageIndex page) override {
    if (pages_.Find(page)) functions_.on_write(policy_.get(), page.raw());
  }

  void OnReturn(PageIndex page, bool wanted) override {
    if (pages_.Find(page)) return;
    pages_.Push(page, kResident);
    functions_.on_return(policy_.get(), page.raw(), wanted ? 1 : 0);
  }

  void OnDiscard(PageIndex page) override {
    if (const auto entry = pages_.Find(page)) pages_.Remove(*entry);
    functions_.on_discard(policy_.get(), page.raw());
  }

  void Choose(PageCount count, std::vector<PageIndex>* victims) override {
    for (; count > PageCount(0) && pages_.size() > PageCount(0); count -= PageCount(1)) {
      const PageQueues::Entry victim = ChooseOne();
      victims->push_back(pages_.page(victim));
      pages_.Remove(victim);
    }
  }

  PageCount resident() const override { return pages_.size(); }

 private:
  static constexpr unsigned kResident = 0;

  // REQUIRES: a page is resident.
  PageQueues::Entry ChooseOne() {
    uint64_t chosen = 0;
    if (functions_.choose(policy_.get(), &chosen) == 0) {
      Complain("has chosen nothing, although pages are resident");
    } else if (chosen >= kMaxVolumePages) {
      Complain(absl::StrCat("has chosen page ", chosen, ", which no volume has"));
    } else if (const auto entry = pages_.Find(PageIndex(chosen))) {
      return *entry;
    } else {
      Complain(absl::StrCat("has chosen page ", chosen, ", which is not resident"));
    }
    const PageQueues::Entry oldest = *pages_.Front(kResident);
    functions_.on_discard(policy_.get(), pages_.page(oldest).raw());
    return oldest;
  }

  void Complain(const std::string& what) {
    if (std::exchange(has_complained_, true)) return;
    LogWarning(absl::StrCat("the policy ", path_, " ", what,
                            "; the oldest page leaves instead (this is said once)"));
  }

  const std::string path_;
  const Library library_;  // outlives what was made with its functions
  const Created policy_;
  const Functions functions_;
  PageQueues pages_;  // those that are resident, the oldest first
  bool has_complained_ = false;
};

bool IsComplete(const Functions& f) {
  return f.create != nullptr && f.destroy != nullptr && f.on_fill != nullptr &&
         f.on_write != nullptr && f.on_return != nullptr && f.on_discard != nullptr &&
         f.choose != nullptr;
}

}  // namespace

absl::StatusOr<std::unique_ptr<EvictionPolicy>> LoadPolicy(const std::string& path,
                                                           PageCount capacity) {
  if (access(path.c_str(), F_OK) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot load the policy ", path));
  }
  // A name without a slash would be looked for among the system's libraries.
  const std::string file = absl::StrCat(path.find('/') == std::string::npos ? "./" : "", path);
  Library library(dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL));
  if (library == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("cannot load the policy ", dlerror()));
  }
  const auto table =
      reinterpret_cast<decltype(&faultline_policy)>(dlsym(library.get(), "faultline_policy"));
  if (table == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the policy ", path, " exports no function faultline_policy(); faultline_policy.h has it"));
  }
  const Functions* const functions = table();
  if (functions == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("faultline_policy() of the policy ", path, " returns NULL"));
  }
  if (functions->version != FAULTLINE_POLICY_VERSION) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the policy ", path, " is for version ", functions->version, " of faultline_policy.h, not ",
        FAULTLINE_POLICY_VERSION, "; build it again with the header of this version"));
  }
  if (!IsComplete(*functions)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the policy ", path, " leaves functions out of its table"));
  }
  Created policy(functions->create(capacity.raw()), DestroyPolicy{functions});
  if (policy == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the policy ", path, " could not be created for ", capacity.raw(), " pages"));
  }
  return std::make_unique<PluginPolicy>(path, std::move(library), std::move(policy));
}

}  // namespace faultline
