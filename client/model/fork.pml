/* SPDX-License-Identifier: Apache-2.0
 *
 * One page, and a target that forks, and that discards the page before or afterwards, while the
 * page is on its way. The child is a process of its own with an address space and page states that
 * are cloned from its parent's. See monitor.pml and README.md.
 */

#define NONE 0
#define SOURCE 1
#define ZERO 2

#define ABSENT 0
#define PRESENT 1
#define ZEROED 2

#define PARENT 0
#define CHILD 1

byte content[2]; /* of the page in each process; NONE: the next access faults */
byte truth[2] = SOURCE;
byte changing; /* mmap_changing of the parent; the child has no events here */
bool waits[2];
bool attached = false; /* the child has an address space */
bool runs = false;     /* the child */

byte state[2];
byte filling; /* holders of the shared side of the parent's map-changing lock */

mtype = { FORK, REMOVE };
chan events = [1] of { mtype };
bool blocked;

inline tell(what) {
  atomic { blocked = true; events!what }
  atomic { !blocked -> changing-- }
}

active proctype reader() {
end:
  do
#ifdef NO_CLONE_UNDER_LOCK
  :: atomic { events?FORK -> blocked = false }
    atomic { filling == 0 -> state[CHILD] = state[PARENT]; attached = true }
#else
  :: atomic {
      filling == 0 && events?[FORK] -> events?FORK; blocked = false;
      state[CHILD] = state[PARENT]; attached = true
    }
#endif
  :: atomic {
      filling == 0 && events?[REMOVE] -> events?REMOVE; blocked = false;
      state[PARENT] = ZEROED
    }
  od
}

/* Fills the page of one process whenever it is waited for, and that of the parent once besides. */
proctype filler(byte who) {
  byte bytes;
  bool drained = (who == CHILD);
end:
  do
  :: atomic {
      (waits[who] || !drained) && (who == PARENT -> changing == 0 : attached) ->
      drained = true;
      filling = filling + (who == PARENT -> 1 : 0);
      bytes = (state[who] == ABSENT -> SOURCE : ZERO)
    }
    /* The ioctl. */
    atomic {
      if
      :: content[who] == NONE && (who == CHILD || changing == 0) -> content[who] = bytes
      :: else
      fi
    }
    /* What it has done is noted: only now. */
    atomic {
      if
      :: content[who] != NONE -> state[who] = PRESENT; waits[who] = false
      :: else
      fi;
      filling = filling - (who == PARENT -> 1 : 0)
    }
  od
}

inline touch(who) {
  do
  :: atomic {
      if
      :: content[who] != NONE -> assert(content[who] == truth[who]); break
      :: else -> waits[who] = true
      fi
    }
    !waits[who]
  od
}

inline discard() {
  changing++;
  tell(REMOVE);
  atomic { content[PARENT] = NONE; truth[PARENT] = ZERO }
}

active proctype parent() {
  if :: touch(PARENT) :: discard() :: true fi;
  atomic { changing++; content[CHILD] = content[PARENT]; truth[CHILD] = truth[PARENT] }
  tell(FORK);
  runs = true;
  if :: discard() :: true fi;
  touch(PARENT)
}

active proctype child() {
  runs -> touch(CHILD)
}

init { atomic { run filler(PARENT); run filler(CHILD) } }
