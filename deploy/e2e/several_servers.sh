#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Two servers of one raw image and an agent that has both: while four threads fault all of it in, one
# server after the other is killed and started again, one hangs, and one drains. Every byte is right,
# no fault waits for long, and the metrics tell what has happened.
. "$(dirname "$0")/functions.sh"
requires_userfaultfd
requires_command jq
requires_command curl

readonly MEBIBYTES=256
readonly PAGES=$((MEBIBYTES * 256))
# What a fault may wait for when a server hangs, and what this machine may take beside it.
readonly BOUND=1.5
image=$scratch/vm
random_image "$image" 43 $MEBIBYTES

# start_one NAME
start_one() {
  local before
  before=$(count_lines "$1.log" 'listening on ')
  spawn "$1" "$BIN/faultline-server" --listen="unix:$scratch/$1.sock" --store="file:$image"
  wait_for "$1 to listen" grown "$1.log" "$before"
}
grown() { (($(count_lines "$1" "listening on ") > $2)); }
both_serve() { (($(scrape agent | grep -c '^faultline_agent_server_connected{.*} 1$') == 2)); }
fetches() {
  scrape agent | sed -nE "s|^faultline_agent_server_fetches_total\{server=\"unix:$scratch/$1.sock\"\} ||p"
}
# Until then there is no other that a fetch could go to.
both_have_the_volume() { (($(fetches one) > 0 && $(fetches two) > 0)); }
present() { attached_is ".[0].present_pages >= $1" true; }

start_one one
start_one two
server_address=unix:$scratch/one.sock,unix:$scratch/two.sock
faultline volume list | grep -q vm || fail "the command line does not see the volume"
start_agent --volume=vm --metrics=127.0.0.1:0
start_toucher target --volume=vm --reference="$image" --threads=4
expect_out target '^mapped'
tell target check

wait_for "the first faults" present 100
wait_for "fetches from both" both_have_the_volume
stop one KILL
wait_for "faults that only the second server answers" present $((PAGES / 16))
start_one one
wait_for "both servers to serve" both_serve
kill -STOP "${pid[two]}"
wait_for "faults while the second hangs" present $((PAGES / 8))
kill -CONT "${pid[two]}"
wait_for "faults after that" present $((PAGES / 6))
stop two TERM
expect "exit status of a server that drains" 0 "$exit_status"
expect_out target "^check $(all_right $PAGES)$"
tell target unmap
wait_for_exit target
expect "exit status of the target" 0 "$exit_status"

scrape agent >"$scratch/metrics"
for server in one two; do
  grep -qE "^faultline_agent_server_fetches_total\{server=\"unix:$scratch/$server.sock\"\} [1-9]" \
    "$scratch/metrics" || fail "server $server was sent no fetch"
done
awk '/^faultline_agent_server_failovers_total/ { sum += $2 } END { exit !(sum > 0) }' \
  "$scratch/metrics" || fail "no fetch has failed over"
awk '/^faultline_agent_fetch_retries_total/ { exit !($2 == 0) }' "$scratch/metrics" ||
  fail "a fault had to be tried again by the agent"
# Buckets are powers of two: all faults are below the first that is beyond the bound.
awk -v bound="$BOUND" '
  match($0, /^faultline_agent_fault_latency_seconds_bucket\{class="demand",le="[^"]*"\}/) {
    le = $0; sub(/.*le="/, "", le); sub(/".*/, "", le)
    if (le == "+Inf") all = $2; else if (le + 0 >= bound && !seen) { within = $2; seen = 1 }
  }
  END { print within " of " all " demand faults within the bound"; exit !(all > 0 && within == all) }
' "$scratch/metrics" || fail "a fault has waited for longer than $BOUND s"
expect_no_log agent '\] error: '
