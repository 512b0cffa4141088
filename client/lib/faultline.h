/* SPDX-License-Identifier: Apache-2.0
 *
 * libfaultline: memory whose pages come from a volume of a page server, as they are touched.
 *
 *   faultline_map_options options = FAULTLINE_MAP_OPTIONS_INIT;
 *   faultline_error error;
 *   faultline_mapping *mapping;
 *   options.volume = "vm";
 *   if (faultline_map(&options, &mapping, &error) < 0) errx(1, "%s", error.message);
 *   use(faultline_address(mapping), faultline_length(mapping));
 *   faultline_unmap(mapping, &error);
 *
 * The memory is the program's own, and private to it: it reads as the volume did, and what the
 * program writes is never written back. An agent (faultline-agent) fills it, over a userfaultfd
 * that this library hands to it, so any access works: loads and stores, system calls, other
 * threads.
 *
 * Errors: every function that can fail returns 0 or a negative errno, and then describes in
 * `error->message` (where `error` is not NULL) what failed and what can be done:
 *   -EINVAL                 an argument is wrong
 *   -ENOENT, -ECONNREFUSED, -EACCES, ...   the agent's socket cannot be connected to
 *   -EPERM                  this process may not have a userfaultfd
 *   -ENOSYS                 this kernel has none
 *   -EREMOTEIO              the agent refused; the message is its own
 *   -ETIMEDOUT, -ECONNRESET the agent did not answer, or closed the connection
 *   -EPROTO                 the agent's answer is not of this protocol
 *   -ENOMEM, -EMFILE, ...   this process has not enough of something
 *
 * Thread-safe, except that nobody may use a mapping or its memory when it is being unmapped.
 *
 * fork(): the memory is not there in a child (MADV_DONTFORK), so that no page which is not filled
 * yet can turn into zeros in it: a child that touches it gets SIGSEGV. Handles are of no use there
 * either. A process that the child then executes is not affected in any way.
 */
#ifndef FAULTLINE_CLIENT_LIB_FAULTLINE_H_
#define FAULTLINE_CLIENT_LIB_FAULTLINE_H_

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define FAULTLINE_API __attribute__((visibility("default")))
#else
#define FAULTLINE_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Where the agent listens, unless FAULTLINE_SOCKET in the environment or the options say another.
 */
#define FAULTLINE_DEFAULT_SOCKET "/run/faultline/agent.sock"

typedef struct faultline_error {
  char message[512]; /* ends with a NUL; cut off where it is longer */
} faultline_error;

typedef struct faultline_mapping faultline_mapping;

/* What kind of memory. */
enum {
  FAULTLINE_MAP_PRIVATE = 0, /* anonymous */
  /* Of a memfd, which faultline_memfd() gives. Only accesses through this mapping are filled: a
   * hole that anything else reads (another process, another mmap, read(2)) becomes zeros for good.
   */
  FAULTLINE_MAP_SHARED = 1
};

/* What happens when the connection to the agent breaks. The memory never turns into zeros: this
 * library keeps the userfaultfd open, so that without an agent an access to a page that is not
 * filled waits. (An agent that is stopped in an orderly way poisons such pages first: their
 * accesses get SIGBUS.) */
enum {
  FAULTLINE_ON_AGENT_LOSS_KILL = 0, /* a line to stderr, then SIGABRT, whatever its handler */
  /* Nothing: accesses to pages that are not filled wait, until an agent that is started in the
   * place of one that was killed (with the same --socket, or --journal) goes on. */
  FAULTLINE_ON_AGENT_LOSS_WAIT = 1
};

/* Initialise with FAULTLINE_MAP_OPTIONS_INIT: members that are added later are 0 by default. */
typedef struct faultline_map_options {
  size_t struct_size;      /* sizeof(faultline_map_options) */
  const char* socket_path; /* of the agent; NULL: $FAULTLINE_SOCKET or FAULTLINE_DEFAULT_SOCKET */
  const char* volume;      /* its name */
  uint64_t offset;         /* in the volume, in bytes; a multiple of 4096 */
  uint64_t length;         /* in bytes; a multiple of 4096; 0: up to the volume's end */
  int memory;              /* FAULTLINE_MAP_... */
  int on_agent_loss;       /* FAULTLINE_ON_AGENT_LOSS_... */
  unsigned timeout_ms;     /* for each answer of the agent; 0: 30000 */
} faultline_map_options;

#define FAULTLINE_MAP_OPTIONS_INIT \
  { sizeof(faultline_map_options), NULL, NULL, 0, 0, 0, 0, 0 }

/* Maps a volume, or a part of one. On success `*mapping` is a handle for faultline_unmap(); nothing
 * is fetched yet. `options` and what it points to need not outlive the call. */
FAULTLINE_API int faultline_map(const faultline_map_options* options, faultline_mapping** mapping,
                                faultline_error* error);

/* Unmaps the memory and ends the attachment. The handle is gone afterwards, and so is the memory,
 * even where it fails: an error says only that the agent did not take leave properly. */
FAULTLINE_API int faultline_unmap(faultline_mapping* mapping, faultline_error* error);

FAULTLINE_API void* faultline_address(const faultline_mapping* mapping);
FAULTLINE_API uint64_t faultline_length(const faultline_mapping* mapping); /* in bytes */
/* The agent's number for it, as "faultline attachments" shows it. */
FAULTLINE_API uint64_t faultline_attachment(const faultline_mapping* mapping);
/* The memfd, which the mapping goes on to own; -1 where the memory is private. */
FAULTLINE_API int faultline_memfd(const faultline_mapping* mapping);

#ifdef __cplusplus
}
#endif

#endif /* FAULTLINE_CLIENT_LIB_FAULTLINE_H_ */
