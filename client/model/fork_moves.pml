/* SPDX-License-Identifier: Apache-2.0
 *
 * A target that forks while its other threads move memory: the fork is one more change whose event
 * may be read before or after those of others. What the child's address space has when the child is
 * released has to be what its kernel has. No fills: the pages are checked by their addresses. See
 * space.pml, monitor.pml and README.md.
 *
 * -D <SCENARIO>   which operations the threads make; see the end of this file
 * -D NO_<RULE>    leaves a rule out
 */

#define ADDRESSES 4
#define THREADS 3 /* two that change memory, and the one that forks */
#define FORKER 2
#define MOVES_MAX 4

#define NOTHING 0
#define EMPTY 3

byte memory[ADDRESSES];       /* NOTHING, a volume page, or EMPTY */
byte child_memory[ADDRESSES]; /* what was in memory[] at the fork */
byte untold;
byte changing;

mtype = { FORK, REMAP, UNMAP };
chan events = [THREADS] of { mtype, byte, byte, byte };
bool blocked[THREADS];

inline tell(what, e_a, e_b) {
  atomic { blocked[t] = true; events!what, e_a, e_b, t; untold-- }
  atomic { !blocked[t] -> changing-- }
}

/* ------------------------------------------------------------------------------ the monitor */

#define wake(w_a) skip
#define SETTLED_HOOK release(); forget_changes()
#define DEPART_HOOK(d_a) note_departed(d_a)
#define RECENT_HOOK(r_from, r_to) append(moved, r_from, r_to)
#include "space.pml"

/* A list of moves, each from and to, the first in the lowest four bits. */
typedef Moves { short list; byte count };
#define FROM(m, n) ((m.list >> (4 * (n))) & 3)
#define TO(m, n) ((m.list >> (4 * (n) + 2)) & 3)

/* Since the last settling, of the parent: AddressSpace::recent_ and departed_. */
Moves moved;
short departed; /* page and address, as with Moves */
byte departed_count;

/* The child's address space, while it is not released. */
byte child_here[ADDRESSES];
byte child_older[ADDRESSES]; /* pages only */
Moves child_moved;
bool waits_for_release;

#define IN_CHILD(d) \
  (child_here[0] == (d) || child_here[1] == (d) || child_here[2] == (d) || child_here[3] == (d))

inline append(m, m_from, m_to) {
  assert(m.count < MOVES_MAX - 1);
  m.list = m.list | ((m_from | (m_to << 2)) << (4 * m.count));
  m.count++
}

inline note_departed(d_a) {
  if
  :: PAGE(here[d_a]) ->
    assert(departed_count < 3);
    departed = departed | ((here[d_a] | (d_a << 2)) << (4 * departed_count));
    departed_count++
  :: else
  fi
}

inline forget_changes() { moved.list = 0; moved.count = 0; departed = 0; departed_count = 0 }

inline child_push(p_a, p_d) {
  if
  :: child_older[p_a] == 0 -> child_older[p_a] = p_d
  :: else -> assert(child_older[p_a] < 4); child_older[p_a] = child_older[p_a] | (p_d << 2)
  fi
}

/* The oldest page that was set aside at s_a. */
inline child_shift(s_a, s_out) { s_out = child_older[s_a] & 3; child_older[s_a] = child_older[s_a] >> 2 }

/* Restore(): where neither the address nor the page is taken. */
inline child_restore(r_a, r_d) {
  if
  :: r_d != NOTHING && child_here[r_a] == NOTHING && !IN_CHILD(r_d) -> child_here[r_a] = r_d
  :: else
  fi
}

inline clone() {
  i = 0;
  do
  :: i < ADDRESSES ->
    child_here[i] = here[i];
    out = older[i];
    do
    :: out == 0 -> break
    :: out != 0 ->
      if
      :: PAGE(out & 3) -> child_push(i, out & 3)
      :: else
      fi;
      out = out >> 2
    od;
    i++
  :: else -> break
  od;
  child_moved.list = moved.list;
  child_moved.count = moved.count
}

inline match_fork() {
  i = 0;
  do
  :: i < ADDRESSES ->
    if
    :: child_here[i] != NOTHING && child_memory[i] == NOTHING ->
      child_push(i, child_here[i]);
      child_here[i] = NOTHING
    :: else
    fi;
    i++
  :: else -> break
  od;
  /* Moved after the fork, the latest first: it still is where it was. */
  i = child_moved.count;
  do
  :: i > 0 ->
    i--;
    if
    :: child_memory[FROM(child_moved, i)] != NOTHING ->
      child_shift(TO(child_moved, i), out);
      child_restore(FROM(child_moved, i), out)
    :: else
    fi
  :: else -> break
  od;
  /* Unmapped after the fork. */
  do
  :: i < departed_count ->
    out = (departed >> (4 * i)) & 3;
    to = (departed >> (4 * i + 2)) & 3;
    if
    :: child_memory[to] != NOTHING -> child_restore(to, out)
    :: else
    fi;
    i++
  :: else -> break
  od;
  child_moved.list = 0;
  child_moved.count = 0;
  to = 0;
  out = 0;
  i = 0
}

/* A REMAP that was read after the fork; what the child has moved on from there follows. */
inline follow_parent(f_from, f_to) {
  from = f_from;
  to = f_to;
  do
  :: true ->
    child_shift(from, out);
    if
    :: out != NOTHING ->
      if
      :: child_here[to] != NOTHING -> child_push(to, child_here[to]); child_here[to] = NOTHING
      :: else
      fi;
      child_restore(to, out);
      from = to;
      i = 0;
      do
      :: i < child_moved.count && FROM(child_moved, i) == from -> break
      :: i < child_moved.count && FROM(child_moved, i) != from -> i++
      :: i >= child_moved.count -> break
      od;
      if
      :: i < child_moved.count ->
        to = TO(child_moved, i);
        /* Takes it out of the list. */
        child_moved.list = (child_moved.list & ((1 << (4 * i)) - 1)) |
                           ((child_moved.list >> (4 * i + 4)) << (4 * i));
        child_moved.count--
      :: else -> break
      fi
    :: out == NOTHING && child_here[to] == NOTHING && child_memory[to] != NOTHING ->
      out = child_here[from];
      child_here[from] = NOTHING;
      child_restore(to, out);
      break
    :: else -> append(child_moved, from, to); break
    fi
  od;
  from = 0;
  to = 0;
  out = 0;
  i = 0
}

/* The child has what it had at the fork. */
inline release() {
  if
  :: waits_for_release ->
    i = 0;
    do
    :: i < ADDRESSES ->
      assert(!PAGE(child_memory[i]) || child_here[i] == child_memory[i]);
      assert(child_here[i] == NOTHING || child_memory[i] != EMPTY);
#ifdef FRESH
      assert(child_older[i] == 0);
#endif
      child_here[i] = NOTHING; child_older[i] = 0; child_memory[i] = NOTHING;
      i++
    :: else -> break
    od;
    child_moved.list = 0;
    child_moved.count = 0;
    waits_for_release = false;
    i = 0
  :: else
  fi
}

inline apply() {
  if
  :: what == REMAP ->
    apply_remap(a, b);
#ifndef NO_FOLLOW_PARENT
    if :: waits_for_release -> follow_parent(a, b) :: else fi
#endif
  :: what == UNMAP -> apply_unmap(a)
  :: what == FORK ->
    clone();
#ifndef NO_MATCH_FORK
    match_fork();
#endif
    waits_for_release = true;
#ifdef NO_AWAIT_SETTLING
    release()
#endif
  fi;
  a = 0;
  b = 0;
  who = 0
}

active proctype reader() {
  byte a, b, i, out, who, from, to;
  mtype what;
end:
  do
  :: atomic {
      nempty(events) && CAUGHT_UP -> settle(); catching_up = false;
      events?what, a, b, who; blocked[who] = false; apply()
    }
  :: atomic { settled -> settle() }
  od
}

/* The probe, or a fill. */
active proctype timer() {
end:
  do
  :: atomic {
      changing == 0 && !settled &&
      (waits_for_release || departed_count > 0 || SET_ASIDE(0) || SET_ASIDE(1) || SET_ASIDE(2) ||
       SET_ASIDE(3)) -> settled = true
    }
  od
}

/* ------------------------------------------------------------------------------- the target */

/* `left`: what stays behind. */
inline move(x_a, x_to, left) {
  atomic {
    to = x_to;
    memory[to] = memory[x_a];
    memory[x_a] = left;
    changing = changing + (left == NOTHING -> 2 : 1);
    untold++;
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

/* MREMAP_FIXED onto memory of the volume, which is unmapped first. */
inline move_onto(x_a, x_to) {
  atomic {
    memory[x_to] = memory[x_a];
    memory[x_a] = NOTHING;
    changing = changing + 3;
    untold++
  }
  tell(UNMAP, x_to, 0);
  untold++;
  tell(REMAP, x_a, x_to);
  untold++;
  tell(UNMAP, x_a, 0);
  x_a = x_to
}

inline unmap(x_a) {
  atomic { memory[x_a] = NOTHING; changing++; untold++ }
  tell(UNMAP, x_a, 0)
}

#if defined(MOVE)
/* Each thread changes its own page once, and no address is used for a second page. */
inline first() { move(at, 2, NOTHING) }
inline second() { if :: move(at, 3, NOTHING) :: unmap(at) fi }

#elif defined(EXCHANGE)
/* A limit: one moves to where the other has just left. */
inline first() { move(at, 2, NOTHING) }
inline second() { memory[0] == NOTHING -> move(at, 0, NOTHING) }

#elif defined(ONWARD)
/* A limit: one moves on and on. */
inline first() { move(at, 2, NOTHING); move(at, 3, NOTHING) }
inline second() { skip }

#elif defined(REUSE)
/* A limit: one unmaps, the other moves there. */
inline first() { unmap(at) }
inline second() { memory[0] == NOTHING -> move(at, 0, NOTHING) }

#elif defined(FIXED)
/* A limit: one moves its page onto another that it has; nobody else does anything. */
inline first() { move_onto(at, 1) }
inline second() { skip }

#elif defined(LEAVING)
/* A limit: MREMAP_DONTUNMAP to where the other has just left. */
inline first() { memory[1] == NOTHING -> move(at, 1, EMPTY) }
inline second() { move(at, 2, NOTHING) }
#endif

proctype target(byte t) {
  byte at = t, from, to;
  if
  :: t == 0 -> first()
  :: t == 1 -> second()
  :: t == FORKER ->
    atomic {
      child_memory[0] = memory[0]; child_memory[1] = memory[1];
      child_memory[2] = memory[2]; child_memory[3] = memory[3];
      changing++; untold++
    }
    tell(FORK, 0, 0)
  fi
}

init {
  atomic {
    memory[0] = 1; here[0] = 1;
    memory[1] = 2; here[1] = 2;
    run target(0); run target(1); run target(FORKER)
  }
}
