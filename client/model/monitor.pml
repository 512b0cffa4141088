/* SPDX-License-Identifier: Apache-2.0
 *
 * The protocol by which the agent follows a target that changes its address space while pages are
 * on their way: one reader of events, two fillers, two threads of the target, and the kernel as far
 * as it matters. README.md says what is modelled, what is not, and what each rule is for; ./check
 * runs all scenarios, each rule removed, and the known limits. space.pml has the address space.
 *
 * -D <SCENARIO>   which operations the threads of the target make; see the end of this file
 * -D NO_<RULE>    leaves a rule out
 */

#define PAGES 2 /* volume pages 1 and 2; page p holds the byte p at the source */
#define THREADS 2
#ifdef EMPTIES
#define ADDRESSES 4
#define ANY(m) (m(0) || m(1) || m(2) || m(3))
#else
#define ADDRESSES 3
#define ANY(m) (m(0) || m(1) || m(2))
#endif
#ifdef DISCARD
#define DRAIN 1 /* the page that the drain fetches */
#endif
#if defined(MOVES) || defined(UNMAPS) || defined(LEAVINGS) || defined(EMPTIES) || defined(HOLES)
#define DRAIN 2
#endif

/* What is at an address, and what is in it. */
#define NOTHING 0
#define EMPTY 3 /* memory without a volume page: left by MREMAP_DONTUNMAP, or grown in place */
#define ZERO 3

/* ------------------------------------------------------------------------------- the kernel */

byte memory[ADDRESSES];  /* NOTHING, a volume page, or EMPTY */
byte content[ADDRESSES]; /* NOTHING: the next access faults */
byte untold;             /* threads that have changed something and not queued their event */
byte changing;           /* mmap_changing: events raised whose writer has not run on */

mtype = { REMAP, UNMAP, REMOVE };
chan events = [THREADS] of { mtype, byte, byte, byte }; /* what, from, to or count, thread */
bool blocked[THREADS];                                  /* its event is not read yet */
bool fault[ADDRESSES];                                  /* a message is queued */
byte waits[THREADS];                                    /* for which address, plus one */

/* What the program has a right to see, and what is in doubt while it discards. */
byte truth[4];
bool discarding[4];

/* How many events are unread that tell of memory leaving this address. */
byte leaving[ADDRESSES];

inline wake(w_a) {
  if :: waits[0] == w_a + 1 -> waits[0] = 0 :: else fi;
  if :: waits[1] == w_a + 1 -> waits[1] = 0 :: else fi
}

/* mmap_lock was dropped before: other threads change the address space meanwhile. */
inline tell(what, e_a, e_b) {
  atomic { blocked[t] = true; events!what, e_a, e_b, t; untold-- }
  atomic { !blocked[t] -> changing-- }
}

/* ------------------------------------------------------------------------------ the monitor */

#define ABSENT 0
#define PRESENT 1
#define ZEROED 2
byte state[PAGES + 1];

#define SETTLED_HOOK skip
#define DEPART_HOOK(d_a) skip
#define RECENT_HOOK(r_from, r_to) skip
#include "space.pml"
byte filling; /* holders of the shared side of the map-changing lock */

bool queued[PAGES + 1];        /* FaultQueue */
chan demand = [4] of { byte }; /* pages to be fetched */
bool read_fault[ADDRESSES];    /* messages that were read and are not resolved */
bool stray[ADDRESSES];         /* resolved: no page is there */

inline apply() {
  if
  :: what == REMAP -> leaving[a]--; apply_remap(a, b)
  :: what == UNMAP ->
    /* b: 0 the second event of a moving mremap, 1 one address, 2 the one behind it, too */
    if
    :: b == 0
    :: b == 1 -> leaving[a]--
    :: b == 2 -> leaving[a]--; leaving[a + 1]--; apply_unmap(a + 1)
    fi;
    apply_unmap(a)
  :: what == REMOVE ->
    if
    :: PAGE(here[a]) -> state[here[a]] = ZEROED
    :: else
    fi
  fi;
  a = 0;
  b = 0;
  who = 0
}

/* The page behind address a, if any, is wanted by some thread. */
inline join(j_a) {
  p = here[j_a];
  if
#ifdef NO_IOCTL_EVERY_FAULT
  :: state[p] == PRESENT
#endif
  :: queued[p]
  :: else -> queued[p] = true; assert(nfull(demand)); demand!p
  fi;
  p = 0
}

#define NO_EVENTS (empty(events))
#define IS_FAULT(x) fault[x]
#define ANY_FAULT ANY(IS_FAULT)
#define IS_READ(x) read_fault[x]
#define ANY_READ ANY(IS_READ)

/* A fault where no page is known, served under the shared lock: it may be known by now. */
#define STRAY_CAN_GO(s) (stray[s] && (PAGE(here[s]) || changing == 0))

active proctype reader() {
  byte a, b, p, i, out, who;
  mtype what;
end:
  do
  /* Faults are read before events; the exclusive lock is held. */
  :: atomic {
      ANY_FAULT && filling == 0 -> settle();
      do :: fault[a] -> break :: else -> a++ od;
      fault[a] = false;
#ifdef NO_RESOLVE_AFTER_DRAIN
      if :: PAGE(here[a]) -> join(a) :: else -> stray[a] = true fi;
#else
      read_fault[a] = true;
#endif
      a = 0
    }
#ifdef NO_LOCK_ACROSS_READ
  :: atomic {
      !ANY_FAULT && nempty(events) && CAUGHT_UP -> catching_up = false; events?what, a, b, who; blocked[who] = false
    }
    atomic { filling == 0 -> settle(); apply() }
#else
  :: atomic {
      !ANY_FAULT && nempty(events) && filling == 0 && CAUGHT_UP -> settle(); catching_up = false;
      events?what, a, b, who; blocked[who] = false; apply()
    }
#endif
  :: atomic {
      !ANY_FAULT && NO_EVENTS && ANY_READ ->
      do :: read_fault[a] -> break :: else -> a++ od;
      read_fault[a] = false;
      if :: PAGE(here[a]) -> join(a) :: else -> stray[a] = true fi;
      a = 0
    }
  :: atomic {
      ANY(STRAY_CAN_GO) ->
      do :: STRAY_CAN_GO(a) -> break :: else -> a++ od;
      stray[a] = false;
      if
#ifdef NO_RESOLVE_AFTER_DRAIN
      :: changing == 0 && memory[a] != NOTHING && content[a] == NOTHING -> content[a] = ZERO
#else
      :: PAGE(here[a]) -> join(a)
      :: !PAGE(here[a]) ->
        settled = true;
        if
        :: memory[a] != NOTHING && content[a] == NOTHING -> content[a] = ZERO
        :: else
        fi
#endif
      :: else
      fi;
      wake(a);
      a = 0
    }
  od
}

/* LiveAttachment::Tick asks the kernel now and then, under the shared lock, whether an event is
 * outstanding, as long as something is set aside. */
#ifndef NO_PROBE
active proctype timer() {
end:
  do
  :: atomic {
      changing == 0 && !settled && ANY(SET_ASIDE) -> settled = true
    }
  od
}
#endif

#define P_IS_AT(x) (here[x] == p)
#define AT_ANY ANY(P_IS_AT)
#define LOCATED (here[0] == p -> 0 : (here[1] == p -> 1 : (here[2] == p -> 2 : 3)))

/* What a fill of page p puts there. */
inline choose_content() {
  if
#ifndef NO_DISCARD_MEANS_ZERO
  :: state[p] == ZEROED -> c = ZERO
#endif
#ifndef NO_PRESENT_MEANS_ZERO
  :: state[p] == PRESENT -> c = ZERO
#endif
  :: else -> c = p
  fi
}

#define NOWHERE 9
#define P_IS_IN(x) (memory[x] == p)

/* Page p has been fetched. A fill that is held off is parked: it cannot be executed until the
 * kernel would let it pass, or until the page is nowhere. */
inline install() {
  do
  /* The shared lock is taken, and the kernel's first look at mmap_changing lets us pass. */
  :: atomic {
#ifdef NO_LOCATE_AT_FILL
      at != NOWHERE && changing == 0 ->
#else
      AT_ANY && changing == 0 -> at = LOCATED;
#endif
      filling++;
#ifndef NO_TAKE_BEFORE_FILL
      taken = queued[p];
      queued[p] = false;
#endif
      choose_content()
    }
    atomic {
      filling--;
      if
#ifdef NO_TRY_LEFT_AGAIN
      :: memory[at] == NOTHING -> /* ENOENT */
#else
      :: memory[at] == NOTHING && changing != 0 -> /* ENOENT, but it has left just now: to where? */
        settled = true; queued[p] = queued[p] || taken
      :: memory[at] == NOTHING && changing == 0 -> /* ENOENT */
#endif
#ifdef EXACT
        assert(!ANY(P_IS_IN));
#endif
        wake(at); settled = true; break
      :: memory[at] != NOTHING && changing != 0 -> /* EAGAIN after all */
#ifdef NO_PARK_ON_EAGAIN
        break
#else
        queued[p] = queued[p] || taken
#endif
      :: memory[at] != NOTHING && changing == 0 && content[at] != NOTHING -> /* EEXIST */
        state[p] = PRESENT; settled = true; wake(at); break
      :: memory[at] != NOTHING && changing == 0 && content[at] == NOTHING ->
#ifdef EXACT
        assert(memory[at] == p);
#endif
        content[at] = c; state[p] = PRESENT; settled = true; wake(at); break
      fi
    }
  :: atomic {
#ifdef NO_LOCATE_AT_FILL
      at == NOWHERE ->
#else
      !AT_ANY ->
#ifdef THOROUGH
      assert(!ANY(P_IS_IN));
#endif
#endif
      queued[p] = false; break
    }
#ifdef NO_PARK_ON_EAGAIN
  :: atomic { AT_ANY && changing != 0 -> queued[p] = false; break }
#endif
  od;
#ifdef NO_TAKE_BEFORE_FILL
  queued[p] = false;
#endif
  at = 0;
  c = 0;
  taken = false
}

#ifdef NO_LOCATE_AT_FILL
#define FETCH atomic { if :: AT_ANY -> at = LOCATED :: else -> at = NOWHERE fi }
#else
#define FETCH skip
#endif

/* Fills what threads of the target wait for. */
active proctype demand_filler() {
  byte p, at, c;
  bool taken;
end:
  do
  :: demand?p; FETCH; install(); p = 0
  od
}

/* Fills everything once: prefetch, drain. */
#ifdef DRAIN
active proctype drain_filler() {
  byte p, at, c;
  bool taken;
  p = DRAIN;
  FETCH;
  install();
  p = 0
}
#endif

/* ------------------------------------------------------------------------------- the target */

/* Reads a byte at x_a and checks it. */
inline touch(x_a) {
  do
  :: atomic {
      if
      :: memory[x_a] == NOTHING -> break /* SIGSEGV */
      :: memory[x_a] != NOTHING && content[x_a] != NOTHING ->
        assert(content[x_a] == truth[memory[x_a]] || discarding[memory[x_a]]);
        break
      :: memory[x_a] != NOTHING && content[x_a] == NOTHING ->
        fault[x_a] = true; waits[t] = x_a + 1
      fi
    }
    waits[t] == 0
  od
}

/* The kernel's choice, as for mremap without MREMAP_FIXED, or with it upon a fresh mapping. */
inline find_free(f_a) {
  if
  :: memory[0] == NOTHING -> f_a = 0
  :: memory[1] == NOTHING -> f_a = 1
  :: memory[2] == NOTHING -> f_a = 2
#ifdef EMPTIES
  :: memory[3] == NOTHING -> f_a = 3
#endif
  fi
}

#define IS_FREE(x) (memory[x] == NOTHING)

/* Moves x_a to where the kernel likes; x_a is where it is then. `left`: what stays behind. */
inline move(x_a, left) {
  atomic {
    ANY(IS_FREE) -> find_free(to);
    memory[to] = memory[x_a]; content[to] = content[x_a];
    memory[x_a] = left; content[x_a] = NOTHING;
    changing = changing + (left == NOTHING -> 2 : 1);
    untold++;
    leaving[x_a]++;
    from = x_a;
    x_a = to
  }
  tell(REMAP, from, to);
  if
  :: left == NOTHING -> untold++; tell(UNMAP, from, 0)
  :: else
  fi;
  to = 0;
  from = 0
}

inline unmap(x_a) {
  atomic {
    memory[x_a] = NOTHING; content[x_a] = NOTHING; changing++; untold++; leaving[x_a]++
  }
  tell(UNMAP, x_a, 1)
}

#ifdef UNOWNED
#define CAN_SPAN(l) true
#else
/* Nobody unmaps what another thread is just moving away from there. README.md, "Limits". */
#define CAN_SPAN(l) (leaving[l] == 0)
#endif

/* One munmap of x_a and of the address behind it, where nothing is, or memory that nobody uses. */
inline unmap_two(x_a) {
  atomic {
    CAN_SPAN(x_a + 1) && !PAGE(memory[x_a + 1]) ->
    memory[x_a] = NOTHING; content[x_a] = NOTHING;
    memory[x_a + 1] = NOTHING; content[x_a + 1] = NOTHING;
    changing++; untold++; leaving[x_a]++; leaving[x_a + 1]++
  }
  tell(UNMAP, x_a, 2)
}

inline discard(x_a) {
  atomic { changing++; untold++; discarding[memory[x_a]] = true }
  tell(REMOVE, x_a, 0);
  /* Only now, and fills pass again. */
  atomic {
    content[x_a] = NOTHING; truth[memory[x_a]] = ZERO; discarding[memory[x_a]] = false
  }
}

/* In place: the kernel tells nobody. */
inline grow(x_a) {
  atomic { memory[x_a] == NOTHING -> memory[x_a] = EMPTY; content[x_a] = NOTHING }
}

/* ---------------------------------------------------------------------------- the scenarios */

byte turn;

#if defined(DISCARD)
/* One discards what both read, while it is fetched for the fault and by the drain. */
inline first() {
  if :: touch(at) :: true fi;
  discard(at);
  touch(at);
  discard(at);
  touch(at)
}
inline second() { touch(0); touch(0) }

#elif defined(MOVES)
/* Both move, onto what the other has just left, while both are fetched. */
inline first() { move(at, NOTHING); if :: touch(at) :: true fi; move(at, NOTHING); touch(at) }
inline second() { move(at, NOTHING); if :: touch(at) :: true fi; move(at, NOTHING); touch(at) }

#elif defined(UNMAPS)
/* One unmaps, the other moves there; each may wait for what the other takes away. */
inline first() { if :: touch(at) :: touch(1) :: true fi; unmap(at); touch(2) }
inline second() { if :: touch(0) :: true fi; move(at, NOTHING); touch(at) }

#elif defined(LEAVINGS) || defined(EMPTIES)
/* MREMAP_DONTUNMAP: what is left behind reads as zeros, and is moved or unmapped in its turn. */
inline first() {
  rest = at;
  move(at, EMPTY);
  if :: touch(rest) :: touch(at) :: true fi;
  if :: unmap(rest) :: move(rest, NOTHING); touch(rest) fi;
  touch(at)
}
inline second() { move(at, NOTHING); if :: touch(at) :: true fi; move(at, NOTHING); touch(at) }

#elif defined(HOLES)
/* One munmap of more than was registered, and of what has grown in place. */
inline first() {
  if :: grow(1); if :: touch(1) :: true fi :: true fi;
  if :: unmap_two(at) :: unmap(at) fi
}
inline second() { move(at, NOTHING); if :: touch(at) :: true fi; move(at, NOTHING); touch(at) }

#elif defined(RETURNS)
/* Both move, and one unmaps where it has moved to, which the other may then move to and from. */
inline first() { move(at, NOTHING); move(at, NOTHING); touch(at) }
inline second() { move(at, NOTHING); unmap(at) }

#elif defined(OVERTAKES)
/* One lands where the other is just moving away from, and unmaps it at once. */
inline first() { move(at, NOTHING); touch(at) }
inline second() { move(at, NOTHING); unmap(at) }

#elif defined(GROWTH)
/* Memory grows in place to where another page was until its unmapping, which is read later. */
inline first() {
  turn == 1;
#if defined(QUIET)
  timeout; /* Nothing happens for a while. */
#elif !defined(SUDDEN)
  touch(at); /* A fill, which settles what the move has left open. */
#endif
  turn = 2;
  if
  :: grow(1); touch(1)
  :: grow(2); touch(2)
  fi
}
inline second() {
  move(at, NOTHING);
  turn = 1;
  turn == 2;
  unmap(at)
}
#endif

proctype target(byte t) {
  byte at = t, rest, to, from;
  if
  :: t == 0 -> first()
  :: t == 1 -> second()
  fi
}

init {
  atomic {
    truth[1] = 1; truth[2] = 2; truth[EMPTY] = ZERO;
    memory[0] = 1; here[0] = 1;
    memory[1] = 2; here[1] = 2;
    run target(0); run target(1)
  }
}
