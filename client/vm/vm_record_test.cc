// SPDX-License-Identifier: Apache-2.0
#include "client/vm/vm_record.h"

#include <absl/strings/str_cat.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "proto/page.h"

namespace faultline {
namespace {

VmRecord Saved() {
  return {.machine = "pc-i440fx-7.2-machine",
          .backend = "mem0",
          .ram_bytes = 512 << 20,
          .cpus = 2,
          .qemu_version = 7'002'022};
}

void ExpectRefused(const VmRecord& started, const std::string& cure) {
  const absl::Status status = CheckSameMachine(Saved(), started);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(status.message().find(cure), absl::string_view::npos) << status;
}

TEST(VmRecord, SurvivesItsVolumeWithTheState) {
  const std::string state = absl::StrCat(std::string("QEVM\0\1", 6), std::string(10'000, 'x'));
  std::string image = EncodeDeviceState(Saved(), state);
  image.resize((image.size() + kPageSize - 1) / kPageSize * kPageSize);  // as a volume gives it
  auto decoded = DecodeDeviceState(image, "vm-state");
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->record, Saved());
  EXPECT_EQ(decoded->bytes, state);
}

TEST(VmRecord, IsNotReadFromWhatIsNone) {
  std::string image = EncodeDeviceState(Saved(), std::string(10'000, 'x'));
  EXPECT_EQ(DecodeDeviceState(image.substr(0, 9000), "v").status().code(),
            absl::StatusCode::kDataLoss);
  EXPECT_EQ(DecodeDeviceState("", "v").status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(DecodeDeviceState(std::string(8192, '\0'), "v").status().code(),
            absl::StatusCode::kDataLoss);
  for (const char* key : {"machine", "ram_bytes", "state_bytes"}) {
    std::string broken = image;
    broken[broken.find(key)] = 'X';
    EXPECT_EQ(DecodeDeviceState(broken, "v").status().code(), absl::StatusCode::kDataLoss) << key;
  }
}

TEST(VmRecord, TellsWhatToChangeWhereTheStartedMachineDiffers) {
  EXPECT_TRUE(CheckSameMachine(Saved(), Saved()).ok());
  VmRecord started = Saved();
  started.machine = "pc-q35-7.2-machine";
  ExpectRefused(started, "start QEMU with -machine pc-i440fx-7.2,memory-backend=mem0");
  started = Saved();
  started.backend = "pc.ram";
  ExpectRefused(started, "-object memory-backend-ram,id=mem0,size=512MiB");
  started = Saved();
  started.ram_bytes = 256 << 20;
  ExpectRefused(started, "start QEMU with -m 512 and size=512M in -object");
  started = Saved();
  started.cpus = 1;
  ExpectRefused(started, "start QEMU with -smp 2");
}

TEST(VmRecord, AllowsANewerQemuAndNoOlderOne) {
  VmRecord started = Saved();
  started.qemu_version = 8'000'000;
  EXPECT_TRUE(CheckSameMachine(Saved(), started).ok());
  started.qemu_version = 7'002'000;  // a micro version is no matter
  EXPECT_TRUE(CheckSameMachine(Saved(), started).ok());
  started.qemu_version = 7'001'050;
  ExpectRefused(started, "QEMU 7.2, the started one 7.1; start one that is at least as new");
}

}  // namespace
}  // namespace faultline
