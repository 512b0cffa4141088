// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_REMOTE_SERVER_WORKING_SETS_H_
#define FAULTLINE_CLIENT_REMOTE_SERVER_WORKING_SETS_H_

#include <deque>
#include <string>
#include <thread>
#include <utility>

#include "client/remote/page_server.h"
#include "client/source/working_sets.h"

namespace faultline {

// Working sets that a page server keeps with its volumes. What is to be kept is sent by a thread of
// its own, and lost, with a warning, where the server cannot take it.
class ServerWorkingSets final : public WorkingSets {
 public:
  // `server` is borrowed.
  explicit ServerWorkingSets(PageServer* server);
  // Sends what is left, for a few seconds at most.
  ~ServerWorkingSets() override;

  absl::StatusOr<WorkingSet> Get(absl::string_view volume, absl::Time deadline) override;
  void Keep(std::string volume, WorkingSet pages) override;

 private:
  void Run();

  PageServer* const server_;
  Mutex mu_;
  CondVar changed_;
  std::deque<std::pair<std::string, WorkingSet>> waiting_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_REMOTE_SERVER_WORKING_SETS_H_
