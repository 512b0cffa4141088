#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A machine that has moved, and the agent that fetches its pages is killed, again and again: each time
# another is started in its place, and the guest goes on with the right bytes. FAULTLINE_ROUNDS sets
# how often (3); how long the guest was silent is told.
. "$(dirname "$0")/functions.sh"
. "$(dirname "$0")/vm/vm.sh"
requires_guest

agent_of() { # NAME: the agent that "vm accept" NAME has started
  local child
  for child in $(cat /proc/"${pid[$1]}"/task/*/children 2>/dev/null); do
    if [[ $(cat "/proc/$child/comm" 2>/dev/null) == faultline-agent ]]; then echo "$child"; fi
  done
}
restarts() { count_lines destination.log '"event":"agent_restarted"'; }
restarted() { (($(restarts) >= $1)); }

start_source source
offer source
accept destination --lazy
wait_for "a tick" ticks_reach destination 1
for ((round = 1; round <= ${FAULTLINE_ROUNDS:-3}; ++round)); do
  kill -KILL "$(agent_of destination)"
  wait_for "another agent" restarted $round
  started=$(date +%s%3N) before=$(ticks_of destination)
  while ! ticks_reach destination $((before + 1)); do :; done
  echo "round $round: the guest's next output after $(($(date +%s%3N) - started)) ms"
  wait_for "the guest to go on" ticks_reach destination $((before + 20))
  expect_no_bad destination
done
wait_for "another pass of the guest" passes_reach destination $(($(passes_of source) + 2))
expect_no_bad destination
