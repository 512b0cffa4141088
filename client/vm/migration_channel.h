// SPDX-License-Identifier: Apache-2.0
//
// What the two ends of a migration tell each other, beside the pages. Each line is a JSON object:
//
//   accept                                  offer
//   {"type":"hello","version":3}        ->
//                                       <-  {"type":"machine","record":{...},"paused":BOOL,
//                                            "pages":ADDRESS,"volume":NAME,"offer":TEXT}
//   QEMU is started; {"type":"ready"}   ->
//                                           the machine is stopped
//                                       <-  {"type":"stopped","first":[N, ...]}
//   RAM attached, while the other           writes the device state
//                                       <-  {"type":"state","bytes":N}, and then N bytes
//   state loaded;
//   {"type":"loaded"}                   ->
//                                       <-  {"type":"run"}: from here on the machine is the other's
//   {"type":"running"}                  ->
//   {"type":"complete"}, all of the RAM is there, or {"type":"ended"}, QEMU has ended in order
//                                       ->
//                                           the source has served its time, and quits
//                                       <-  {"type":"released"}
//
// Before "loaded" either end may say {"type":"failed","message":...}, or just go: then the source
// continues, and the destination never runs. After "run" the source never continues by itself.
//
// A connection that breaks after "loaded" is made again, by the destination:
//
//   {"type":"again","volume":NAME,
//    "offer":TEXT,"state":STATE}        ->
//                                       <-  {"type":"run"}, or {"type":"failed","message":...}
//
// STATE is the last of "loaded", "running", "complete" and "ended" that was said, and counts as
// said. An offer that has said "run" says it again to the same destination, and to no other:
// "offer" is different for each. A page server that was killed with its offer may be offered again
// ("vm offer --resume"); such an offer does not know what was said before, so it lets nobody run
// that does not run already. Whatever happens to the two ends and to the connection between them,
// the machine does not run twice: who has not said "run" may continue the source, who has not heard
// it may not run the machine.
//
// "first" is the pages that are to be fetched before all others, as PageSet::EncodeRuns() makes
// them. ADDRESS is unix:PATH, host:port, or :port on the host that the other end has connected to.
// NAME is different for each QEMU, so that no other one's RAM is taken for it.
#ifndef FAULTLINE_CLIENT_VM_MIGRATION_CHANNEL_H_
#define FAULTLINE_CLIENT_VM_MIGRATION_CHANNEL_H_

#include <absl/functional/function_ref.h>
#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>
#include <absl/time/time.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include <nlohmann/json.hpp>

#include "client/attach/handover_socket.h"
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

  // Has the next Receive...() return `message` first.
  void Repeat(const nlohmann::ordered_json& message);
  // Gives up a connection in a way that the other end can tell from the end of this process.
  void Abandon();

 private:
  // Reads more into received_.
  absl::Status Read(absl::Time deadline, CheckFunction check);

  UniqueFd socket_;
  std::string received_;
};

// Where an offer listens. Not thread-safe.
class MigrationListener {
 public:
  // `address` is host:port, port 0 being any, or unix:path.
  static absl::StatusOr<MigrationListener> Listen(const std::string& address);

  // As it can be connected to, with the true port.
  const std::string& address() const { return address_; }

  // The next connection. DEADLINE_EXCEEDED where there is none in time; what `check` says.
  absl::StatusOr<MigrationChannel> Accept(absl::Duration timeout, CheckFunction check);

 private:
  MigrationListener() = default;

  std::string address_;
  UniqueFd socket_;                           // of host:port
  std::unique_ptr<ListeningSocket> by_path_;  // of unix:path
};

// FAILED_PRECONDITION, naming the address and what to check, where nobody listens there;
// UNAVAILABLE where it cannot be reached within `timeout`.
absl::StatusOr<MigrationChannel> ConnectMigration(const std::string& address,
                                                  absl::Duration timeout);

// The address of a page server that listens at `pages`, as the other end of a migration over
// `listen` is told it; and, at that end, as the one that has connected to `from` is to use it. A
// server that listens on the same host as the offer, or on all of its addresses, is found by the
// address that the offer was found by.
std::string PagesToldAddress(const std::string& pages, const std::string& listen);
std::string PagesAddress(const std::string& told, const std::string& from);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_VM_MIGRATION_CHANNEL_H_
