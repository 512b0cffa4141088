// SPDX-License-Identifier: Apache-2.0
//
// QmpClient: commands to a running QEMU, over QMP.
#ifndef FAULTLINE_CLIENT_VM_QMP_CLIENT_H_
#define FAULTLINE_CLIENT_VM_QMP_CLIENT_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>
#include <absl/time/time.h>
#include <sys/types.h>

#include <cstdint>
#include <deque>
#include <initializer_list>
#include <memory>
#include <string>

#include <nlohmann/json.hpp>

#include "client/attach/json_text_splitter.h"
#include "client/unique_fd.h"
#include "client/vm/qmp_message.h"

namespace faultline {

struct QmpEvent {
  std::string name;
  nlohmann::json data;
  absl::Time time;  // by QEMU's clock, which is that of its host
};

// One connection, one command at a time; blocks. Not thread-safe.
//
// Errors of every method: UNAVAILABLE where QEMU has closed the connection; DEADLINE_EXCEEDED where
// it did not answer in time, after which the next command may be tried; FAILED_PRECONDITION where
// the other end does not speak QMP. After the first and the last every further call says the same.
class QmpClient {
 public:
  // Connects to the socket of "-qmp unix:PATH,server=on,wait=off" and enters command mode.
  // UNAVAILABLE, naming the path and what to check, where nobody listens there.
  static absl::StatusOr<std::unique_ptr<QmpClient>> Connect(const std::string& path,
                                                            absl::Duration timeout);
  // The same on a connected socket. `name` stands for it in messages.
  static absl::StatusOr<std::unique_ptr<QmpClient>> Open(UniqueFd socket, std::string name,
                                                         absl::Duration timeout);

  // Runs `command` and returns what it returns. FAILED_PRECONDITION, with QEMU's own description,
  // where QEMU refuses; UNIMPLEMENTED where it does not know the command; NOT_FOUND where it does
  // not know the object. `arguments` is an object, or null for none.
  absl::StatusOr<nlohmann::json> Execute(absl::string_view command,
                                         const nlohmann::json& arguments = nullptr);
  // The same; `descriptor`, which is borrowed, goes with the command (for "getfd").
  absl::StatusOr<nlohmann::json> ExecuteWithDescriptor(absl::string_view command,
                                                       const nlohmann::json& arguments,
                                                       int descriptor);

  // The oldest event of one of these names that has come since the beginning and was not returned
  // yet. Events of other names stay; of all that wait, the last kMaxEvents are kept.
  absl::StatusOr<QmpEvent> WaitForEvent(std::initializer_list<absl::string_view> names,
                                        absl::Duration timeout);

  // Of an answer, from here on.
  void set_timeout(absl::Duration timeout) { timeout_ = timeout; }
  // QEMU's version, as its greeting has it: major * 1000000 + minor * 1000 + micro.
  uint64_t version() const { return version_; }
  // Who listens at the other end; of a pair of sockets, whoever made it. 0 where that is not known.
  pid_t peer() const;

  static constexpr size_t kMaxEvents = 1024;

 private:
  QmpClient(UniqueFd socket, std::string name, absl::Duration timeout);

  absl::Status Negotiate();
  absl::Status Send(absl::string_view text, int descriptor, absl::Time deadline);
  // The next message, whichever it is.
  absl::StatusOr<QmpMessage> Receive(absl::string_view awaited, absl::Time deadline);
  // Waits until there is more to read, and reads it.
  absl::Status Read(absl::string_view awaited, absl::Time deadline);
  void Keep(QmpMessage event);
  // Remembers an error after which the connection is of no use any more.
  absl::Status Broken(absl::Status status);

  const UniqueFd socket_;
  const std::string name_;
  absl::Duration timeout_;
  uint64_t version_ = 0;
  uint64_t last_id_ = 0;
  JsonTextSplitter splitter_;
  std::deque<QmpEvent> events_;
  absl::Status broken_;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_VM_QMP_CLIENT_H_
