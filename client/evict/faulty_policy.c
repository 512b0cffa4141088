/* SPDX-License-Identifier: Apache-2.0
 *
 * For tests: policies that break their word, one for each definition of FAULT.
 */
#include <stddef.h>
#include <stdlib.h>

#include "client/evict/faultline_policy.h"

#define EXPORTED __attribute__((visibility("default")))

/* Values of FAULT. */
#define NO_FUNCTION 1
#define NO_TABLE 2
#define OTHER_VERSION 3
#define INCOMPLETE 4
#define NOT_CREATED 5
#define CHOOSES_NOTHING 6
#define CHOOSES_THE_SAME 7
#define CHOOSES_ANYTHING 8

#if FAULT != NO_FUNCTION

static void* create(uint64_t capacity) {
  (void)capacity;
  return FAULT == NOT_CREATED ? NULL : calloc(1, sizeof(uint64_t));
}

static void on_fill(void* policy, uint64_t page, int cause) {
  (void)policy, (void)page, (void)cause;
}

static void on_page(void* policy, uint64_t page) { (void)policy, (void)page; }

static void on_return(void* policy, uint64_t page, int wanted) {
  (void)policy, (void)page, (void)wanted;
}

static int choose(void* policy, uint64_t* page) {
  uint64_t* const state = policy;
  if (FAULT == CHOOSES_NOTHING) return 0;
  *page = 7;
  if (FAULT == CHOOSES_ANYTHING) {
    /* Now and then one that is resident, most often one that no volume has. */
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    *page = *state >> 33 & 1 ? *state : *state >> 58;
  }
  return 1;
}

static const struct faultline_policy_functions functions = {
    FAULT == OTHER_VERSION ? FAULTLINE_POLICY_VERSION + 1 : FAULTLINE_POLICY_VERSION,
    create,
    free,
    on_fill,
    on_page,
    on_return,
    FAULT == INCOMPLETE ? NULL : on_page,
    choose};

EXPORTED const struct faultline_policy_functions* faultline_policy(void) {
  return FAULT == NO_TABLE ? NULL : &functions;
}

#else

EXPORTED int no_policy(void) { return 0; }

#endif
