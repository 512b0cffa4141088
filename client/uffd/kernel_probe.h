// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_UFFD_KERNEL_PROBE_H_
#define FAULTLINE_CLIENT_UFFD_KERNEL_PROBE_H_

#include <absl/strings/string_view.h>

#include <cstdint>
#include <optional>
#include <string>

namespace faultline {

// What the running kernel was seen to do.
struct KernelProbe {
  // An event waits for the fills that were under way when it was raised, and holds back all later
  // ones (map_changing_lock, Linux 6.9, commits 5e4c24a57b0c and 867a43a34ff8).
  bool fills_exclude_events = false;
  // How that was found out, for the log: "seen: ..." or "by the kernel's release 6.1.0: ...".
  std::string evidence;
};

// Tries it in this process's own memory, in some tens of milliseconds: while one thread fills a
// large range, another discards memory that the same userfaultfd serves. Before 6.9 that event can
// be read while the fill goes on. Where no try is conclusive, or userfaultfd is not to be had, the
// kernel's release decides (uname).
KernelProbe ProbeKernel();

// What one try has seen. No field depends on how fast the threads ran: a thread that did not get to
// run makes a try inconclusive, not wrong.
struct ProbeTry {
  uint64_t pages = 0;  // that the fill had to fill
  // The fill went through, in one ioctl, and the event was read only afterwards.
  bool filled_all = false;
  bool event_read = false;
  // Pages that were filled when the event was found readable for the first time; none where that
  // was after the fill. The kernel of 6.9 fills no page while an event is unread.
  std::optional<uint64_t> pages_at_event;
  // How often the discarding thread was found asleep inside madvise with no event readable, while
  // the fill went on. The kernel before 6.9 sleeps there in two places: for the event to be read,
  // and for a writer of mmap_lock, which would hold up the observer as well. Adds up over tries.
  int blocked_samples = 0;
};

// Whether fills exclude events, or nothing where the try does not tell.
std::optional<bool> Judge(const ProbeTry& seen);

// Whether fills exclude events in a mainline kernel of this release, as uname tells it.
bool ReleaseExcludesEvents(absl::string_view release);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_UFFD_KERNEL_PROBE_H_
