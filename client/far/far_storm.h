// SPDX-License-Identifier: Apache-2.0
//
// What far_target does to its memory while pages are taken out of it: it counts in every page, and
// knows outside of the far memory how far each has come.
#ifndef FAULTLINE_CLIENT_FAR_FAR_STORM_H_
#define FAULTLINE_CLIENT_FAR_FAR_STORM_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "client/far/command_memory.h"

namespace faultline {

inline constexpr size_t kFarPageBytes = 4096;

// Two threads count in random pages of `memory`, which is zero, for `milliseconds`. Returns
// "OK COUNTED" or what is wrong.
std::string Count(std::byte* memory, size_t pages, int milliseconds);

// Counts in the first page, each time at the very moment at which a command of the eviction helper
// is under way.
std::string Meet(std::byte* memory, const CommandMemory& command, int milliseconds);

// As Count(), while another thread moves parts of the memory, discards and unmaps some, and forks
// children that check all of theirs; and yet another one maps other memory wherever an address was
// just left, and sees whether anything of that is taken.
enum class Forks { kNone, kSome };
std::string Churn(std::byte* memory, size_t pages, int milliseconds, Forks forks);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_FAR_FAR_STORM_H_
