// SPDX-License-Identifier: Apache-2.0
//
// Goes on, in another process and perhaps on another host, with what far_checkpoint has left: a
// checkpoint becomes far memory of its own, and is summed up.
//
//   c++ -std=c++17 -o far_restore far_restore.cc -lfaultline
//   ./far_restore /run/faultline/agent.sock numbers-at-noon numbers2
#include <cstdint>
#include <cstdio>
#include <memory>
#include <numeric>

#include "client/lib/faultline.h"

namespace {

struct Abandon {
  void operator()(faultline_far* far) const { faultline_far_abandon(far); }
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: far_restore SOCKET SNAPSHOT VOLUME\n");
    return 2;
  }
  faultline_far_options options = FAULTLINE_FAR_OPTIONS_INIT;
  options.socket_path = argv[1];
  options.snapshot = argv[2];
  options.volume = argv[3];
  options.local_memory = std::uint64_t{4} << 20;
  options.prefetch = "streams";
  faultline_error error = {};
  faultline_far* opened = nullptr;
  if (faultline_far_restore(&options, &opened, &error) != 0) {
    std::fprintf(stderr, "restore: %s\n", error.message);
    return 1;
  }
  // Nothing is written to it, so that nothing has to be flushed.
  const std::unique_ptr<faultline_far, Abandon> far(opened);

  const auto* const numbers = static_cast<const std::uint64_t*>(faultline_far_address(far.get()));
  const std::uint64_t count = faultline_far_size(far.get()) / sizeof *numbers;
  std::printf("%llu\n", static_cast<unsigned long long>(
                            std::accumulate(numbers, numbers + count, std::uint64_t{0})));
  return 0;
}
