// SPDX-License-Identifier: Apache-2.0
//
// What the two ends of a migration tell each other, beside the pages. Each line is a JSON object:
//
//   accept                                  offer
//   {"type":"hello","version":1}        ->
//                                       <-  {"type":"machine","record":{...},"paused":BOOL,
//                                            "pages":ADDRESS,"volume":NAME}
//   QEMU is started; {"type":"ready"}   ->
//                                           the machine is stopped
//                                       <-  {"type":"state","bytes":N}, and then N bytes
//   RAM attached, state loaded;
//   {"type":"loaded"}                   ->
//                                       <-  {"type":"run"}: from here on the machine is the other's
//   {"type":"running"}                  ->
//   {"type":"complete"}, all of the RAM is there, or {"type":"ended"}, QEMU has ended in order
//                                       ->
//                                           the source has served its time
//
// Before "run" either end may say {"type":"failed","message":...}, or just go: then the source
// continues, and the destination never runs. After it the source never continues by itself.
//
// ADDRESS is unix:PATH, host:port, or :port on the host that the other end has connected to.
#ifndef FAULTLINE_CLIENT_VM_MIGRATION_CHANNEL_H_
#define FAULTLINE_CLIENT_VM_MIGRATION_CHANNEL_H_

#include <absl/functional/function_ref.h>
#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>
#include <absl/time/time.h>

#include <cstdint>
#include <string>

#include <nlohmann/json.hpp>

#include "client/unique_fd.h"

namespace faultline {

// Looked at every now and then by what waits, which ends with its error.
using CheckFunction = absl::FunctionRef<absl::Status()>;

// One connected end. Not thread-safe.
//
// Errors of all methods: UNAVAILABLE where the other end is gone; ABORTED where the connection
// broke, and nobody knows; DEADLINE_EXCEEDED.
class MigrationChannel {
 public:
  explicit MigrationChannel(UniqueFd socket) : socket_(std::move(socket)) {}

  absl::Status Send(const nlohmann::ordered_json& message);
  absl::Status SendBytes(absl::string_view bytes);

  // The next message, which must be of this type. FAILED_PRECONDITION, with what the other end
  // says, where it has failed, and where it does not speak this protocol.
  absl::StatusOr<nlohmann::ordered_json> Receive(absl::string_view type, absl::Duration timeout,
                                                 CheckFunction check);
  // The next message, whatever its type.
  absl::StatusOr<nlohmann::ordered_json> ReceiveAny(absl::Duration timeout, CheckFunction check);
  absl::StatusOr<std::string> ReceiveBytes(uint64_t count, absl::Duration timeout,
                                           CheckFunction check);

 private:
  // Reads more into received_.
  absl::Status Read(absl::Time deadline, CheckFunction check);

  UniqueFd socket_;
  std::string received_;
};

// Waits for one connection at `address`, which is host:port or unix:path; removes the socket of the
// latter. `listening` is told the address once it can be connected to, with the true port.
absl::StatusOr<MigrationChannel> AcceptMigration(
    const std::string& address, CheckFunction check,
    absl::FunctionRef<void(const std::string& address)> listening);

// UNAVAILABLE, naming the address and what to check, where nobody listens there.
absl::StatusOr<MigrationChannel> ConnectMigration(const std::string& address);

// `pages` as the end that has connected to `from` is to use it.
std::string PagesAddress(const std::string& pages, const std::string& from);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_VM_MIGRATION_CHANNEL_H_
