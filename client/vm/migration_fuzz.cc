// SPDX-License-Identifier: Apache-2.0
//
// What the other end of a migration says, whoever that is, and what a volume holds where a saved
// machine's state should be: of any bytes. Messages are refused or can be answered; a record of a
// machine, and a state, stay what they are when they are written down again.
//
// An input is a stream behind a byte of 0, or behind a 1 what follows the mark of a device state.
#include <sys/socket.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include <nlohmann/json.hpp>

#include "client/vm/migration_channel.h"
#include "client/vm/vm_record.h"
#include "proto/page.h"

namespace faultline {
namespace {

using nlohmann::ordered_json;

// A socket takes so much without anybody who reads it.
constexpr size_t kMaxStream = size_t{100} << 10;

void Check(bool holds) {
  if (!holds) abort();
}

absl::Status GoOn() { return absl::OkStatus(); }

void ReadRecord(const ordered_json& json) {
  const absl::StatusOr<VmRecord> record = ParseVmRecord(json);
  if (!record.ok()) return;
  const absl::StatusOr<VmRecord> again = ParseVmRecord(VmRecordToJson(*record));
  Check(again.ok() && *again == *record);
  Check(CheckSameMachine(*record, *record).ok());
}

void ReadStream(absl::string_view stream) {
  int ends[2];
  Check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
  MigrationChannel theirs{UniqueFd(ends[0])};
  MigrationChannel ours{UniqueFd(ends[1])};
  Check(theirs.SendBytes(stream.substr(0, kMaxStream)).ok());
  Check(shutdown(ends[0], SHUT_WR) == 0);
  while (true) {
    const absl::StatusOr<ordered_json> message = ours.ReceiveAny(absl::ZeroDuration(), GoOn);
    if (absl::IsUnavailable(message.status())) return;  // all of it was read
    if (!message.ok()) {
      Check(absl::IsFailedPrecondition(message.status()));
      return;
    }
    Check(message->is_object() && message->contains("type"));
    ReadRecord(message->value("record", ordered_json()));
    // To be heard once more, as another type and as what it is.
    ours.Repeat(*message);
    Check(absl::IsFailedPrecondition(
        ours.Receive("no such type", absl::ZeroDuration(), GoOn).status()));
    ours.Repeat(*message);
    const auto repeated = ours.ReceiveAny(absl::ZeroDuration(), GoOn);
    Check(repeated.ok() && *repeated == *message);
    const ordered_json bytes = message->value("bytes", ordered_json());
    if (!bytes.is_number_unsigned()) continue;
    const uint64_t count = bytes.get<uint64_t>();
    const auto state = ours.ReceiveBytes(count, absl::ZeroDuration(), GoOn);
    Check(state.ok() ? state->size() == count : absl::IsUnavailable(state.status()));
    if (!state.ok()) return;
  }
}

void ReadDeviceState(absl::string_view bytes) {
  // The mark, and what follows it on its page and behind that.
  std::string image = EncodeDeviceState(VmRecord(), "");
  const size_t mark = image.find('\n') + 1;
  const size_t on_page = std::min(bytes.size(), kPageSize - mark);
  image.replace(mark, kPageSize - mark, std::string(bytes.substr(0, on_page)));
  image.resize(kPageSize, '\0');
  image += std::string(bytes.substr(on_page));
  const absl::StatusOr<DeviceState> state = DecodeDeviceState(image, "volume");
  if (!state.ok()) {
    Check(absl::IsDataLoss(state.status()));
    return;
  }
  const auto again = DecodeDeviceState(EncodeDeviceState(state->record, state->bytes), "volume");
  Check(again.ok() && again->record == state->record && again->bytes == state->bytes);
}

}  // namespace
}  // namespace faultline

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const absl::string_view input(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] % 2 == 0) {
    faultline::ReadStream(input);
  } else {
    faultline::ReadDeviceState(input);
  }
  return 0;
}
