/* SPDX-License-Identifier: Apache-2.0
 *
 * libfaultline: memory whose pages come from a volume of a page server, as they are touched; and,
 * in the second part, far memory, whose pages go back there where there is no room for them.
 *
 *   faultline_map_options options = FAULTLINE_MAP_OPTIONS_INIT;
 *   faultline_error error;
 *   faultline_mapping *mapping;
 *   options.volume = "vm";
 *   if (faultline_map(&options, &mapping, &error) < 0) errx(1, "%s", error.message);
 *   use(faultline_address(mapping), faultline_length(mapping));
 *   faultline_unmap(mapping, &error);
 *
 * Such memory is the program's own, and private to it: it reads as the volume did, and what the
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

/* Far memory: a region that may be larger than what this process has room for. It is backed by a
 * volume of the page server, which it is the one writer of: so much of it is in local memory as the
 * budget says, and the agent writes the rest there, and fetches it again as it is touched.
 *
 *   faultline_far_options options = FAULTLINE_FAR_OPTIONS_INIT;
 *   options.volume = "table";
 *   options.size = 1ull << 34;
 *   options.local_memory = 1ull << 30;
 *   if (faultline_far_create(&options, &far, &error) < 0) errx(1, "%s", error.message);
 *   use(faultline_far_address(far));
 *   faultline_far_flush(far, &error);                  what was written is on the server
 *   faultline_far_checkpoint(far, "monday", &error);   all of it, as it was at one moment
 *   faultline_far_close(far, &error);
 *
 * The volume changes as pages leave, in no order: what it holds when a program or its agent ends
 * without faultline_far_flush() or faultline_far_close() is a mixture. A snapshot that
 * faultline_far_checkpoint() has made stays as it is.
 *
 * fork(): as above, the region is not there in a child, which gets SIGSEGV where it touches it.
 * What must not be done to the region: other mappings of its memory; I/O that pins its pages and
 * writes to them (O_DIRECT reads, registered buffers of io_uring); MADV_REMOVE. Write zeros
 * instead, which take no room on the server.
 *
 * Where the server does not answer, accesses to what is not here wait until it does. All functions
 * but close and abandon are for any thread, also at the same time. They wait for their answer for
 * the time that the options or the call say at most; then the error is -EREMOTEIO or -ETIMEDOUT,
 * and says what has held it up. Nothing is lost by that, and the region goes on. */
typedef struct faultline_far faultline_far;

#define FAULTLINE_LOCAL_MEMORY_DEFAULT UINT64_MAX

/* Initialise with FAULTLINE_FAR_OPTIONS_INIT. */
typedef struct faultline_far_options {
  size_t struct_size;      /* sizeof(faultline_far_options) */
  const char* socket_path; /* as of faultline_map_options */
  const char* volume;      /* its name */
  const char* snapshot;    /* of faultline_far_restore(): what the volume is to be a clone of */
  /* In bytes, a multiple of 4096. Of faultline_far_create(): what the volume is to have; otherwise
   * 0, or else what it is expected to have. */
  uint64_t size;
  /* What may be here, in bytes: 1 MiB up to the region's size. FAULTLINE_LOCAL_MEMORY_DEFAULT: the
   * agent's --local-memory. */
  uint64_t local_memory;
  const char* policy;     /* which pages leave: a name, or what the agent's --policy is; or NULL */
  const char* prefetch;   /* as of the agent's --prefetch; or NULL */
  const char* durability; /* of a volume that is created: "sync" (or NULL), "interval", "none" */
  int on_agent_loss;      /* FAULTLINE_ON_AGENT_LOSS_... */
  unsigned timeout_ms;    /* for each answer of the agent; 0: 60000 */
} faultline_far_options;

#define FAULTLINE_FAR_OPTIONS_INIT                                                            \
  {                                                                                           \
    sizeof(faultline_far_options), NULL, NULL, NULL, 0, FAULTLINE_LOCAL_MEMORY_DEFAULT, NULL, \
        NULL, NULL, 0, 0                                                                      \
  }

/* On success `*far` is a handle for faultline_far_close(). Create makes the volume, which must not
 * be there, all zero. Open takes one that is there, and its content; whoever has written to it
 * until then cannot any more. Restore makes the volume, as a clone of a snapshot. */
FAULTLINE_API int faultline_far_create(const faultline_far_options* options, faultline_far** far,
                                       faultline_error* error);
FAULTLINE_API int faultline_far_open(const faultline_far_options* options, faultline_far** far,
                                     faultline_error* error);
FAULTLINE_API int faultline_far_restore(const faultline_far_options* options, faultline_far** far,
                                        faultline_error* error);

FAULTLINE_API void* faultline_far_address(const faultline_far* far);
FAULTLINE_API uint64_t faultline_far_size(const faultline_far* far); /* in bytes */
FAULTLINE_API uint64_t faultline_far_attachment(const faultline_far* far);

enum {
  /* Fetches what is not here, behind the faults, as far as there is room. Does not wait for it. */
  FAULTLINE_FAR_WILL_NEED = 0,
  /* These pages leave first, when there is need. They keep their content. */
  FAULTLINE_FAR_WILL_NOT_NEED = 1,
  /* Fetches all of the range, and returns when it is here; it stays. Counts against local_memory,
   * of which at least the eighth for pages on their way and some more must be left for others:
   * -EREMOTEIO where the range does not fit. Pages that were never written take no memory until
   * they are. */
  FAULTLINE_FAR_PIN = 2,
  FAULTLINE_FAR_UNPIN = 3
};

/* `offset` and `length` in bytes, multiples of 4096, within the region. */
FAULTLINE_API int faultline_far_advise(faultline_far* far, uint64_t offset, uint64_t length,
                                       int advice, faultline_error* error);

/* Returns when everything that was written before the call is on the server, as durable as the
 * volume's policy says. What is written meanwhile may be, too, or a part of it. The pages stay
 * here. -EREMOTEIO where the server is full, away, or has another writer of the volume. */
FAULTLINE_API int faultline_far_flush(faultline_far* far, faultline_error* error);

/* Makes a snapshot of the volume on the server, which must not be there, that has the region as it
 * was at one moment during the call, while all threads go on: if it has something that was written,
 * it has everything that was written before that. Threads that write wait until all of the region
 * is protected, and until the page they write to was copied. */
FAULTLINE_API int faultline_far_checkpoint(faultline_far* far, const char* snapshot,
                                           faultline_error* error);

/* Flushes, unmaps and ends the attachment; the volume stays. Where the flush fails the region is as
 * it was, and the handle, too. No thread may use the region. */
FAULTLINE_API int faultline_far_close(faultline_far* far, faultline_error* error);
/* The same without a flush: what was not flushed is lost. */
FAULTLINE_API void faultline_far_abandon(faultline_far* far);

#ifdef __cplusplus
}
#endif

#endif /* FAULTLINE_CLIENT_LIB_FAULTLINE_H_ */
