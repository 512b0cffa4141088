// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_EXPERIMENT_SWAP_LIMIT_H_
#define FAULTLINE_CLIENT_EXPERIMENT_SWAP_LIMIT_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <cstdint>
#include <string>
#include <vector>

namespace faultline::experiment {

// Where a control group that limits memory can be made.
struct MemoryGroups {
  std::string directory;  // to make it in
  std::string limit;      // the file in it that has the limit, in bytes
  bool unified = false;   // version 2
};

// From the texts of /proc/self/cgroup and /proc/self/mountinfo: the group that this process is in,
// where that can have others in it. NOT_FOUND where no memory controller is mounted. Pure.
absl::StatusOr<MemoryGroups> FindMemoryGroups(absl::string_view own_groups,
                                              absl::string_view mounts);

// A swap file and a control group that is allowed so much memory: what runs in it has the rest
// swapped by the kernel. Both are gone when this is. Needs root. Not thread-safe.
class SwapLimit {
 public:
  // FAILED_PRECONDITION, with what to do, where this machine does not let it be.
  static absl::StatusOr<SwapLimit> Create(const std::string& directory, uint64_t swap_bytes,
                                          uint64_t limit_bytes);
  SwapLimit(SwapLimit&& other) noexcept;
  SwapLimit& operator=(SwapLimit&&) = delete;
  ~SwapLimit();

  // What runs `argv` in the group. Its programs must have ended before this does.
  std::vector<std::string> Wrap(const std::vector<std::string>& argv) const;

 private:
  SwapLimit() = default;

  std::string swap_file_, group_;  // empty: there is none
};

// Pages that the kernel has read from swap, and written to it, since it was booted.
struct SwapTraffic {
  uint64_t read_pages = 0, written_pages = 0;
};
SwapTraffic ReadSwapTraffic();

}  // namespace faultline::experiment

#endif  // FAULTLINE_CLIENT_EXPERIMENT_SWAP_LIMIT_H_
