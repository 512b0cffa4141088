#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The page server is killed while a restored machine's RAM is fetched. The machine waits, and goes
# on when the server is back. Where that takes longer than the deadline, the policy decides: the
# machine is stopped, and its guest does not see the time pass; it waits; or QEMU ends. No word is
# wrong.
. "$(dirname "$0")/functions.sh"
. "$(dirname "$0")/vm/vm.sh"
requires_guest
requires_command perl

save_a_machine
saved_pass=$(passes_of source)

# begin NAME FLAGS...: restores it, lazily, so that pages are left whenever the server dies.
begin() {
  restore "$@" --lazy
  expect_event "$1" resumed
  wait_for "ticks of $1" ticks_reach "$1" $(($(first_of "$1") + 20))
}
first_of() { first_tick "$1" | grep . || echo 0; }
# The greatest step between two ticks, in the guest's own milliseconds.
longest_step() {
  sed -nE 's/^tick [0-9]+ ms ([0-9]+) .*/\1/p' "$scratch/$1.console" |
    awk 'NR > 1 && $1 - last > most { most = $1 - last } { last = $1 } END { print most + 0 }'
}
waits() { (($(attached '.[0].oldest_wait_seconds | floor') >= $1)); }

# In the middle of a drain.
restore drained --drain
wait_for "pages" eval '(($(attached ".[0].present_pages // 0") > 100))'
stop server KILL
if says_event drained complete; then fail "the RAM was fetched before the server died"; fi
wait_for "a fault that waits" eval '(($(attached ".[0].waiting_faults") > 0))'
start_server
expect_event drained complete
wait_for "passes of drained" passes_reach drained $((saved_pass + 1))
expect_no_bad drained
if says_event drained stopped; then fail "it was stopped before the deadline"; fi
stop drained TERM

# stop: the guest's clock stands still, whatever the time of day does.
begin stopped --fault-deadline=1s
stop server KILL
expect_event stopped stopped
wait_for "the wait to get long" waits 3
start_server
expect_event stopped continued
wait_for "passes of stopped" passes_reach stopped $((saved_pass + 1))
expect_no_bad stopped
step=$(longest_step stopped)
echo "stopped: a wait of at least 3 s is a step of $step ms for the guest"
((step < 2500)) || fail "a guest that was stopped has seen $step ms pass"
expect "its state" '"running"' "$(qmp stopped query-status | jq .status)"
stop stopped TERM

# wait: the guest's clock goes on.
begin waiting --fault-policy=wait --fault-deadline=1s
stop server KILL
wait_for "the wait to get long" waits 3
if says_event waiting stopped; then fail "it was stopped"; fi
start_server
wait_for "passes of waiting" passes_reach waiting $((saved_pass + 1))
expect_no_bad waiting
step=$(longest_step waiting)
((step >= 2500)) || fail "a guest that waited has seen only $step ms pass"
stop waiting TERM

# kill, poison: the end of QEMU, with its status, and nothing wrong before.
for policy in kill poison; do
  begin $policy --fault-policy=$policy --fault-deadline=300ms
  stop server KILL
  wait_for_exit $policy
  expect "the end of $policy" 1 "$exit_status"
  expect_log $policy "QEMU ended with status 1[0-9][0-9]"
  tail -n 1 "$scratch/$policy.log"
  expect_no_bad $policy
  start_server
done
