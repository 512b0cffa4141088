/* SPDX-License-Identifier: Apache-2.0
 *
 * AddressSpace: which page is behind which address, for the reader of events, which comes to know
 * of changes in whatever order they are told. Included by models that have in memory[] what the
 * kernel has at each address; `i` and `out` are variables of the reader. For forks there are hooks.
 */

#define PAGE(d) ((d) == 1 || (d) == 2)

byte here[ADDRESSES];    /* the newest: a volume page or NOTHING */
byte older[ADDRESSES];   /* what was set aside, oldest in the lowest two bits; 3 has moved away */
bool doubted[ADDRESSES]; /* the one thing in older[] was unmapped, unless a REMAP says otherwise */
bool recent[ADDRESSES];  /* something was moved here since the last settling */
bool kept[ADDRESSES];    /* an UNMAP was read, and the kernel says that memory is here */
bool settled;            /* the kernel has let a fill pass, or a probe */
bool catching_up; /* the reader gives those time that have changed something and not told yet */

/* Whether something waits for the space to be settled. */
#define SET_ASIDE(x) (older[x] != 0 || recent[x])
#ifdef NO_CATCH_UP
#define CAUGHT_UP true
#else
#define CAUGHT_UP (!catching_up || untold == 0)
#endif

/* Takes the lowest entry that is a page (`take_page`) or any out of older[s_a]. */
inline shift_out(s_a, take_page, s_out) {
  s_out = NOTHING;
  if
  :: !take_page || PAGE(older[s_a] & 3) -> s_out = older[s_a] & 3; older[s_a] = older[s_a] >> 2
  :: else ->
    if
    :: PAGE((older[s_a] >> 2) & 3) ->
      s_out = (older[s_a] >> 2) & 3;
      older[s_a] = (older[s_a] & 3) | ((older[s_a] >> 4) << 2)
    :: else -> assert((older[s_a] >> 4) == 0 || (older[s_a] >> 4) == 3)
    fi
  fi
}

inline push(p_a, p_d) {
  if
  :: older[p_a] == 0 -> older[p_a] = p_d
  :: older[p_a] != 0 && older[p_a] < 4 -> older[p_a] = older[p_a] | (p_d << 2)
  :: older[p_a] >= 4 && older[p_a] < 16 -> older[p_a] = older[p_a] | (p_d << 4)
  :: older[p_a] >= 16 -> assert(older[p_a] < 64); older[p_a] = older[p_a] | (p_d << 6)
  fi
}

inline settle() {
  if
  :: settled ->
    settled = false;
    SETTLED_HOOK;
#ifndef NO_SETTLE
    d_step {
      i = 0;
      do
      :: i < ADDRESSES ->
        older[i] = 0; recent[i] = false; kept[i] = false; doubted[i] = false; i++
      :: else -> break
      od;
      i = 0
    }
#endif
  :: else
  fi
}

/* Memory left address a. */
inline apply_unmap(u_a) {
#ifdef NO_VACATE_OLDEST
  here[u_a] = NOTHING;
#else
  kept[u_a] = false;
  if
  :: older[u_a] != 0 -> shift_out(u_a, false, out); doubted[u_a] = false
#ifndef NO_ASK_KERNEL
  :: older[u_a] == 0 && recent[u_a] && here[u_a] != NOTHING && memory[u_a] != NOTHING ->
    kept[u_a] = true
#ifndef NO_DOUBT
  :: older[u_a] == 0 && recent[u_a] && here[u_a] != NOTHING && memory[u_a] == NOTHING ->
    older[u_a] = here[u_a]; doubted[u_a] = true; here[u_a] = NOTHING
#endif
#endif
  :: else -> DEPART_HOOK(u_a); here[u_a] = NOTHING
  fi;
#endif
#ifndef NO_WAKE_VACATED
  wake(u_a);
#endif
  out = 0
}

inline apply_remap(r_a, r_b) {
#ifdef NO_VACATE_OLDEST
  out = here[r_a];
  here[r_a] = NOTHING;
  here[r_b] = out;
#else
  shift_out(r_a, true, out);
  if
  :: out == NOTHING -> out = here[r_a]; here[r_a] = NOTHING
  :: else -> doubted[r_a] = false
  fi;
  kept[r_a] = false;
  push(r_a, 3);
  if
  :: doubted[r_b] -> older[r_b] = 0; doubted[r_b] = false
  :: else
  fi;
  if
#ifndef NO_BELIEVE_KEPT_UNMAP
  :: kept[r_b] /* The UNMAP was about what is here: something else is what the kernel has seen. */
  :: here[r_b] != NOTHING && !kept[r_b] -> push(r_b, here[r_b]); catching_up = true
#else
  :: here[r_b] != NOTHING -> push(r_b, here[r_b]); catching_up = true
#endif
  :: else
  fi;
  kept[r_b] = false;
  here[r_b] = out;
  recent[r_b] = true;
  RECENT_HOOK(r_a, r_b);
#endif
#ifndef NO_WAKE_VACATED
  wake(r_a);
  wake(r_b);
#endif
  out = 0
}

