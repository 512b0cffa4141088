/* SPDX-License-Identifier: Apache-2.0
 *
 * An example of a policy as a shared object: CLOCK. Resident pages stand in a ring of slots; a page
 * that was wanted back from the victim stage, or written to, is passed over once.
 */
#include <stdlib.h>

#include "client/evict/faultline_policy.h"

#define EXPORTED __attribute__((visibility("default")))

static const uint32_t FREE = UINT32_MAX;

struct slot {
  uint64_t page;
  uint32_t next; /* of the same bucket, or free slot; FREE: the last */
  uint8_t used, referenced;
};

struct clock_policy {
  struct slot* slots;
  uint32_t* buckets; /* the first slot of each */
  uint32_t count;    /* of slots and of buckets, a power of two */
  uint32_t free, hand;
};

static uint32_t* bucket_of(struct clock_policy* clock, uint64_t page) {
  return &clock->buckets[(page * UINT64_C(0x9e3779b97f4a7c15) >> 32) & (clock->count - 1)];
}

/* The link that points to the slot of `page`, or to FREE. */
static uint32_t* find(struct clock_policy* clock, uint64_t page) {
  uint32_t* link = bucket_of(clock, page);
  while (*link != FREE && clock->slots[*link].page != page) link = &clock->slots[*link].next;
  return link;
}

static int grow(struct clock_policy* clock, uint32_t count) {
  if (count > UINT32_C(1) << 30) return 0;
  struct slot* const slots = realloc(clock->slots, count * sizeof *slots);
  if (slots == NULL) return 0;
  clock->slots = slots;
  uint32_t* const buckets = realloc(clock->buckets, count * sizeof *buckets);
  if (buckets == NULL) return 0;
  clock->buckets = buckets;
  for (uint32_t i = clock->count; i < count; ++i) {
    slots[i] = (struct slot){.next = clock->free};
    clock->free = i;
  }
  const uint32_t used = clock->count;
  clock->count = count;
  for (uint32_t i = 0; i < count; ++i) buckets[i] = FREE;
  for (uint32_t i = 0; i < used; ++i) { /* all of them: it grows only when none is free */
    uint32_t* const bucket = bucket_of(clock, slots[i].page);
    slots[i].next = *bucket;
    *bucket = i;
  }
  return 1;
}

static void destroy(void* policy) {
  struct clock_policy* const clock = policy;
  free(clock->slots);
  free(clock->buckets);
  free(clock);
}

static void* create(uint64_t capacity) {
  (void)capacity;
  struct clock_policy* const clock = calloc(1, sizeof *clock);
  if (clock == NULL) return NULL;
  clock->free = FREE;
  if (grow(clock, 1024)) return clock;
  destroy(clock);
  return NULL;
}

static void add(struct clock_policy* clock, uint64_t page, uint8_t referenced) {
  if (*find(clock, page) != FREE) return;
  /* Where memory is short the page is not known; the oldest will leave in its place. */
  if (clock->free == FREE && !grow(clock, clock->count * 2)) return;
  const uint32_t slot = clock->free;
  clock->free = clock->slots[slot].next;
  uint32_t* const bucket = bucket_of(clock, page);
  clock->slots[slot] = (struct slot){page, *bucket, 1, referenced};
  *bucket = slot;
}

static void take(struct clock_policy* clock, uint32_t* link) {
  const uint32_t slot = *link;
  *link = clock->slots[slot].next;
  clock->slots[slot] = (struct slot){.next = clock->free};
  clock->free = slot;
}

static void on_fill(void* policy, uint64_t page, int cause) {
  (void)cause;
  add(policy, page, 0);
}

static void on_write(void* policy, uint64_t page) {
  struct clock_policy* const clock = policy;
  const uint32_t slot = *find(clock, page);
  if (slot != FREE) clock->slots[slot].referenced = 1;
}

static void on_return(void* policy, uint64_t page, int wanted) { add(policy, page, wanted != 0); }

static void on_discard(void* policy, uint64_t page) {
  uint32_t* const link = find(policy, page);
  if (*link != FREE) take(policy, link);
}

static int choose(void* policy, uint64_t* page) {
  struct clock_policy* const clock = policy;
  /* Twice around, if all of them are referenced. */
  for (uint64_t i = 0; i < UINT64_C(2) * clock->count; ++i) {
    struct slot* const slot = &clock->slots[clock->hand];
    clock->hand = (clock->hand + 1) & (clock->count - 1);
    if (!slot->used) continue;
    if (slot->referenced) {
      slot->referenced = 0;
      continue;
    }
    *page = slot->page;
    take(clock, find(clock, slot->page));
    return 1;
  }
  return 0;
}

static const struct faultline_policy_functions functions = {
    FAULTLINE_POLICY_VERSION, create, destroy, on_fill, on_write, on_return, on_discard, choose};

EXPORTED const struct faultline_policy_functions* faultline_policy(void) { return &functions; }
