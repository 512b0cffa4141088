/* SPDX-License-Identifier: Apache-2.0
 *
 * An eviction policy of your own, in a shared object that `--policy=./my_policy.so` loads. Plain C;
 * build it with
 *
 *   cc -shared -fPIC -O2 -o my_policy.so my_policy.c
 *
 * and export one function, faultline_policy(), which returns the table of your functions:
 *
 *   static const struct faultline_policy_functions functions = {
 *     FAULTLINE_POLICY_VERSION, create, destroy, on_fill, on_write, on_return, on_discard, choose};
 *   const struct faultline_policy_functions *faultline_policy(void) { return &functions; }
 *
 * What a policy hears of: that a page was filled; that one was written to for the first time since;
 * that one it had chosen is wanted back while its bytes are still in the victim stage. A page that
 * is there can be read without anybody noticing.
 *
 * A page is resident from on_fill or on_return until it is chosen or discarded. Faultline keeps
 * count of that by itself: what `choose` returns is evicted only if it is resident. Where it is
 * not, or where nothing is returned although pages are resident, the page that has been resident
 * for longest leaves instead; the policy is told so by on_discard, and the log says it once.
 *
 * There is one policy for each memory that is managed. The calls for one come one at a time, from
 * any thread, while a thread of the program may wait: return at once, do not block, throw or
 * longjmp, and do not touch memory that is itself paged.
 */
#ifndef FAULTLINE_CLIENT_EVICT_FAULTLINE_POLICY_H_
#define FAULTLINE_CLIENT_EVICT_FAULTLINE_POLICY_H_

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Of this interface. A shared object with another one is refused. */
#define FAULTLINE_POLICY_VERSION 1

/* Why a page was filled. */
enum {
  FAULTLINE_FILL_DEMAND = 0, /* a thread waited for it */
  FAULTLINE_FILL_AHEAD = 1   /* a guess that nobody has touched yet, as far as is known */
};

/* `policy` is what create() has returned; `page` the number of a page in its volume. All are there,
 * none may be NULL. */
struct faultline_policy_functions {
  uint32_t version; /* FAULTLINE_POLICY_VERSION */

  /* `capacity`: about how many pages will be resident, for the sizes of tables. NULL: it failed. */
  void* (*create)(uint64_t capacity);
  void (*destroy)(void* policy);

  void (*on_fill)(void* policy, uint64_t page, int cause);
  /* The first write to a resident page since it was filled. */
  void (*on_write)(void* policy, uint64_t page);
  /* A page that was chosen is resident again: a fault has taken it out of the victim stage
   * (`wanted` is 1), or it could not be evicted (0). */
  void (*on_return)(void* policy, uint64_t page, int wanted);
  /* The program has discarded it, resident or not. */
  void (*on_discard)(void* policy, uint64_t page);

  /* Puts the resident page that shall leave next into `*page`, and forgets that it is resident.
   * Returns 1, or 0 where none is resident. Called once for each page that has to leave. */
  int (*choose)(void* policy, uint64_t* page);
};

/* What the shared object exports. The table stays valid while the shared object is loaded. */
const struct faultline_policy_functions* faultline_policy(void);

#ifdef __cplusplus
}
#endif

#endif /* FAULTLINE_CLIENT_EVICT_FAULTLINE_POLICY_H_ */
