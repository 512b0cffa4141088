// SPDX-License-Identifier: Apache-2.0
//
// libfaultline-preload.so: a program that knows nothing of it gets one of its mappings paged, from
// the moment at which it makes it. For programs whose memory must never have been anything else,
// such as a QEMU that waits for a migration:
//
//   FAULTLINE_PRELOAD_SOCKET=/run/faultline/agent.sock FAULTLINE_PRELOAD_VOLUME=vm-memory
//   FAULTLINE_PRELOAD_PATH=/dev/shm/vm.mem LD_PRELOAD=/usr/lib/libfaultline-preload.so
//   qemu-system-x86_64 -incoming defer ...
//
// The environment:
//   FAULTLINE_PRELOAD_SOCKET     where the agent listens
//   FAULTLINE_PRELOAD_VOLUME     what the memory reads as
//   FAULTLINE_PRELOAD_OFFSET     where in the volume the memory begins, a multiple of 4096. Without
//                                it the volume must be exactly as large as the memory
//   FAULTLINE_PRELOAD_DEVICE     opened for a userfaultfd in place of /dev/userfaultfd
// and one of these, which says which mapping it is:
//   FAULTLINE_PRELOAD_PATH       one of this file, which is on tmpfs
//   FAULTLINE_PRELOAD_MEMFD      one of a memfd, of this many bytes
//   FAULTLINE_PRELOAD_ANONYMOUS  a private anonymous one, readable and writable, of this many bytes
// Sizes may end in K, M, G or T, and then in iB.
//
// What it does to the program:
// - mmap of that mapping returns when the agent serves it. Where that cannot be, mmap fails, and
//   a line on stderr says why and what to do. So does a second mapping that fits the description: a
//   file must not be reached past the userfaultfd, and of two sizes one cannot know which is meant.
// - The userfaultfd stays open in the program, so that without an agent it waits, and never reads
//   zeros.
// - Shared memory is discarded exactly: fallocate(FALLOC_FL_PUNCH_HOLE), of which a userfaultfd is
//   told nothing, becomes MADV_REMOVE; MADV_DONTNEED, which takes no content from shared memory but
//   looks to the agent as if it did, becomes nothing. Any other fallocate of its file fails with
//   EOPNOTSUPP, since it would make zeros of pages that were not filled, and so does mremap of it.
// - The environment loses these variables and this library's name in LD_PRELOAD when the program
//   starts, so that what it executes has neither. Hence a wrapper (setpriv, timeout) must not be
//   what is preloaded: put "env LD_PRELOAD=..." between it and the program.
//
// What the program does by system calls of its own, without the C library's functions, is not seen;
// so it is with what the C library does itself (malloc). An allocator that calls mmap for memory
// that fits the description, with its own lock held, would wait for itself.
#ifndef FAULTLINE_CLIENT_LIB_PRELOAD_H_
#define FAULTLINE_CLIENT_LIB_PRELOAD_H_

#include <stddef.h>
#include <sys/types.h>

#include <cstdint>
#include <string>

#include "client/lib/failure.h"

namespace faultline {

enum class PreloadKind { kNone, kPath, kMemfd, kAnonymous };

struct PreloadOptions {
  std::string socket_path;
  std::string volume;
  bool whole_volume = true;  // no offset was given
  uint64_t offset = 0;       // in the volume, in bytes
  std::string device = "/dev/userfaultfd";
  PreloadKind kind = PreloadKind::kNone;
  std::string path;         // of kPath
  uint64_t size_bytes = 0;  // of the others; a multiple of the page size
};

// What mmap was asked for.
struct MapCall {
  size_t length = 0;
  int protection = 0;
  int flags = 0;
  int fd = -1;
  off_t offset = 0;
};

// Reads the environment. EINVAL, saying which variable is wrong, for what cannot be done. `options`
// have kind kNone where no variable of this library is set.
Failure ReadPreloadOptions(PreloadOptions* options);

// Removes the variables of this library, and the library `name` from LD_PRELOAD, in place: the
// `envp` of main() and pointers into the environment stay right. Allocates nothing.
void CleanEnvironment(const char* name);

// Whether `call` makes the mapping that `options` mean. Allocates nothing; keeps errno.
bool IsMeant(const PreloadOptions& options, const MapCall& call);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_LIB_PRELOAD_H_
