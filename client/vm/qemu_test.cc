// SPDX-License-Identifier: Apache-2.0
#include "client/vm/qemu.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "client/vm/fake_qmp_server.h"

namespace faultline {
namespace {

using nlohmann::json;

// What CheckOnlyQemuUsesRam() says of a QEMU with these devices and this network.
absl::Status Check(const std::vector<std::string>& types, const std::string& network) {
  FakeQmpServer server([&](const json& command, UniqueFd) -> std::optional<std::string> {
    if (command["execute"] == "qom-list") {
      json devices = json::array({{{"name", "type"}, {"type", "string"}}});
      if (command["arguments"]["path"] == "/machine/peripheral-anon") {
        for (const std::string& type : types)
          devices.push_back({{"name", "device"}, {"type", type}});
      }
      return FakeQmpServer::Return(command, devices);
    }
    if (command["execute"] == "human-monitor-command")
      return FakeQmpServer::Return(command, network);
    return FakeQmpServer::Return(command);
  });
  Qemu qemu(*QmpClient::Open(server.TakeClientEnd(), "the test", absl::Seconds(10)));
  return qemu.CheckOnlyQemuUsesRam();
}

TEST(Qemu, AllowsDevicesOfItsOwn) {
  EXPECT_TRUE(Check({}, "").ok());
  EXPECT_TRUE(Check({"child<virtio-net-pci>", "child<vhost-vsock-pci>", "child<vhost-scsi-pci>"},
                    "net0: index=0,type=nic,model=virtio-net-pci\r\n \\ n: "
                    "index=0,type=tap,ifname=tap0,vhost=on\r\n")
                  .ok());
}

TEST(Qemu, RefusesDevicesWithWhichOthersUseItsRam) {
  for (const char* type : {"vfio-pci", "vfio-ccw", "x-vfio-user-pci", "vhost-user-blk-pci",
                           "vhost-user-fs-pci", "vhost-vdpa-device-pci"}) {
    const absl::Status status =
        Check({"child<virtio-rng-pci>", std::string("child<") + type + ">"}, "");
    EXPECT_TRUE(absl::IsFailedPrecondition(status)) << type;
    EXPECT_NE(status.message().find(std::string("the device ") + type), absl::string_view::npos);
  }
  for (const char* type : {"vhost-user", "vhost-vdpa"}) {
    const absl::Status status =
        Check({"child<virtio-net-pci>"}, std::string(" \\ n: index=0,type=") + type + ",x\r\n");
    EXPECT_TRUE(absl::IsFailedPrecondition(status)) << type;
  }
}

}  // namespace
}  // namespace faultline
