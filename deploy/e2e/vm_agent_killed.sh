#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# When its agent is killed, a restored machine waits at the next page that is not there: it never
# reads zeros. That is said, and the machine goes on with the next agent, again and again. It can be
# ended without any, too.
. "$(dirname "$0")/functions.sh"
. "$(dirname "$0")/vm/vm.sh"
requires_guest

save_a_machine
restore lazy --lazy
wait_for "a tick" ticks_reach lazy 1
# Pages are left, and its next pass asks for all of them: it does not get through that.
asleep() { [[ $(ticks_of lazy) == "$before" ]] || { before=$(ticks_of lazy) && return 1; }; }
agent_lost() { (($(count_lines lazy.log '"event":"agent_lost"') >= $1)); }
for round in 1 2 3; do
  stop agent KILL
  wait_for "a line of the lost agent" agent_lost $round
  before=''
  wait_for "the guest to wait" asleep
  expect_no_bad lazy
  ((round < 3)) || break
  start_agent
  expect_log agent "adopted"
  wait_for "the guest to go on" ticks_reach lazy $((before + 20))
  expect_no_bad lazy
done
is_alive lazy || fail "the machine has ended"
qemu_pid=$(jq -r 'select(.event == "resumed").pid' "$scratch/lazy.log")
stop lazy TERM
[[ ! -e /proc/$qemu_pid ]] || fail "its QEMU is left"
expect_no_bad lazy
