// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_RUN_RUN_DIRECTORY_H_
#define FAULTLINE_CLIENT_RUN_RUN_DIRECTORY_H_

#include <absl/functional/function_ref.h>
#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <memory>
#include <string>

#include "client/unique_fd.h"

namespace faultline {

// What a run has on this machine: the directory of its agent's socket and journal, which has the
// staged pages, and so is best in memory. It says on which server the run has volumes, and with
// what their names begin, so that another run can delete them where this one and its agent are
// killed. Only its agent, where the run alone is killed, ends in order (--run-directory).
class RunDirectory {
 public:
  // In /dev/shm, $XDG_RUNTIME_DIR or, where neither has room for `journal_bytes`, /tmp.
  static absl::StatusOr<std::unique_ptr<RunDirectory>> Create(uint64_t journal_bytes,
                                                              const std::string& server,
                                                              const std::string& volume_prefix);
  // Removes it, but not after Leave().
  ~RunDirectory();
  RunDirectory(const RunDirectory&) = delete;
  RunDirectory& operator=(const RunDirectory&) = delete;

  const std::string& path() const { return path_; }
  // Volumes may be left: it is for CollectKilledRuns().
  void Leave() { leave_ = true; }

 private:
  explicit RunDirectory(std::string path) : path_(std::move(path)) {}

  const std::string path_;
  bool leave_ = false;
  UniqueFd owner_;  // locked for as long as the run goes on
};

// Removes the directories of this user's runs of `server` that were killed, and whose agents have
// ended, too; their volumes first, by `delete_volumes` with what the names of those begin. Where
// that fails, the directory stays for the next time.
void CollectKilledRuns(const std::string& server,
                       absl::FunctionRef<absl::Status(const std::string& prefix)> delete_volumes);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_RUN_RUN_DIRECTORY_H_
