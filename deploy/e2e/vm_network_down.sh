#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The network between the two hosts of a migration goes down while RAM is fetched, for a moment and
# for longer than the deadline, and comes back: the machine waits, is stopped, and goes on. The two
# ends find each other again, and the source quits in the end. No word is wrong.
. "$(dirname "$0")/functions.sh"
. "$(dirname "$0")/vm/vm.sh"
requires_guest
make_hosts
slow_cable 100mbit

start_source source
offer source $SOURCE_IP:7500
accept destination --fault-deadline=4s
expect_event destination running
agent_socket=$(event destination running socket)
# QEMU cannot be stopped while it waits for a page itself.
expect_stop() { expect_log destination '"event":"(stopped|waiting)"'; }
waits() { [[ $(attached '.[0].waiting_faults') -gt 0 ]]; }

wait_for "ticks" ticks_reach destination $(($(ticks_of source) + 20))
cable down
wait_for "a fault that waits" waits
cable up
pages=$(attached '.[0].present_pages')
wait_for "further pages" eval "((\$(attached '.[0].present_pages') > pages + 100))"
if says destination.log '"event":"(stopped|waiting)"'; then fail "it was stopped before the deadline"; fi
if says_event destination complete; then fail "the RAM was fetched too soon for this test"; fi

cable down
expect_stop
cable up
expect_event destination continued
slow_cable 2gbit
expect_event destination complete
for name in offer source; do
  wait_for_exit $name
  expect "the end of $name" 0 "$exit_status"
done
expect_goes_on destination "$(ticks_of source)" "$(passes_of source)"
grep -hE 'stopped|waiting|continued|complete|broken|connected|released' "$scratch"/{destination,offer}.log
