// SPDX-License-Identifier: Apache-2.0
#include "client/vm/incoming_vm.h"

#include <gtest/gtest.h>

namespace faultline {
namespace {

TEST(ParseQemuCommand, HasQemuWaitForItsState) {
  auto command = ParseQemuCommand({"qemu-system-x86_64", "-m", "512"});
  ASSERT_TRUE(command.ok()) << command.status();
  EXPECT_EQ(command->argv,
            (std::vector<std::string>{"qemu-system-x86_64", "-m", "512", "-incoming", "defer"}));
  EXPECT_FALSE(command->paused);
  command = ParseQemuCommand({"qemu-system-x86_64", "--incoming", "defer", "-S"});
  ASSERT_TRUE(command.ok()) << command.status();
  EXPECT_EQ(command->argv.size(), 4u);
  EXPECT_TRUE(command->paused);
}

TEST(ParseQemuCommand, RefusesWhatCannotBeRestored) {
  using Argv = std::vector<std::string>;
  for (const Argv& argv : {Argv{}, Argv{"qemu", "-daemonize"}, Argv{"qemu", "-loadvm", "x"},
                           Argv{"qemu", "-incoming"}, Argv{"qemu", "-incoming", "tcp:0:4444"}}) {
    EXPECT_EQ(ParseQemuCommand(argv).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace faultline
