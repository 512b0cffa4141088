#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A machine moves to another QEMU, where it runs while its RAM is still at the source; once that is
# fetched, the source has quit. Its ticks go on one by one, and no word is wrong. A second machine
# moves with nothing fetched but what it touches, and ends there.
. "$(dirname "$0")/functions.sh"
. "$(dirname "$0")/vm/vm.sh"
requires_guest

start_source source
offer source
wait_for "ticks while it is offered" ticks_reach source $(($(ticks_of source) + 20))
accept destination
expect_log offer '"event":"running"'
wait_for_exit source
expect "the end of the source" 0 "$exit_status"
wait_for_exit offer
expect "the end of the offer" 0 "$exit_status"
expect_log destination '"event":"complete"'
cat "$scratch/offer.log" "$scratch/destination.log"
if says destination.console '^ready'; then fail "the destination has booted"; fi
expect_goes_on destination "$(ticks_of source)" "$(passes_of source)"
expect_no_bad source
stop destination TERM
expect "the end by a signal" 0 "$exit_status"

# By a Unix socket, and lazily.
rm "$scratch/source.console" "$shm/source.mem"
start_source source
offer source "unix:$scratch/offer.sock"
accept lazy --lazy
expect_log offer '"event":"running"'
expect_goes_on lazy "$(ticks_of source)" "$(passes_of source)"
# Its end, in order, is the end of what the source is needed for.
kill -TERM "$(jq -r 'select(.event == "running").pid' "$scratch/lazy.log")"
for name in lazy offer source; do
  wait_for_exit $name
  expect "the end of $name" 0 "$exit_status"
done
[[ -z $(find /tmp -maxdepth 1 -name 'faultline.*' -newer "$scratch/guest/initrd") ]] ||
  fail "accept has left a directory behind"
