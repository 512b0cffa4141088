#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# When its agent is killed, a restored machine waits at the next page that is not there: it never
# reads zeros. That is said, and the machine can be ended.
. "$(dirname "$0")/functions.sh"
. "$(dirname "$0")/vm/vm.sh"
requires_guest

start_server
start_agent
start_source source
faultline vm save --qmp="$scratch/source.qmp" --volume=vm --quit
wait_for_exit source
qemu_command lazy "$(private_ram)"
spawn lazy "$BIN/faultline" --server="$server_address" --output=json vm restore --volume=vm \
  --socket="$agent_socket" --lazy -- "${qemu[@]}"
wait_for "a tick" ticks_reach lazy 1
stop agent KILL
expect_log lazy '"event":"agent_lost"'
# Pages are left, and its next pass asks for all of them: it does not get through that.
asleep() { [[ $(ticks_of lazy) == "$before" ]] || { before=$(ticks_of lazy) && return 1; }; }
before=''
wait_for "the guest to wait" asleep
expect_no_bad lazy
is_alive lazy || fail "the machine has ended"
qemu_pid=$(jq -r 'select(.event == "resumed").pid' "$scratch/lazy.log")
stop lazy TERM
[[ ! -e /proc/$qemu_pid ]] || fail "its QEMU is left"
expect_no_bad lazy
