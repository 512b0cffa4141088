#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The agent of a program on far memory is killed with -9, again and again, in the middle of whatever it
# does: another goes on, the program only waits, and not one of its bytes is lost.
. "$(dirname "$0")/functions.sh"
requires_userfaultfd
requires_command jq

start_server

# Kills the agent of the program $2, which `run` runs, with pauses of $1 seconds, five times, or until
# it has ended.
kill_agents() {
  local agent kills=0
  wait_for "the program" runs "$2"
  while ((kills < 5)) && ! has_exited run; do
    sleep "$1"
    agent=$(pgrep -P "${pid[run]}" -x faultline-agent) || continue
    kill -KILL "$agent" 2>/dev/null && kills=$((kills + 1))
  done
  wait_for_exit run
  expect "the exit status" 0 "$exit_status"
  ((kills > 0)) || fail "it has ended before it was killed: it is too short"
}
runs() { pgrep -P "${pid[run]}" -x "$1" >/dev/null; }

for name in gups hash-table; do
  spawn run "$BIN/faultline" --server="$server_address" run --local-memory=8MiB -- \
    "$BIN/faultline-workload" "$name" --size=24MiB --threads=2 --operations=5000
  kill_agents 0.3 faultline-workl
  expect_match "$name" 'all bytes right' "$(cat "$scratch/run.out")"
done

# A program of everybody's.
seq 1 600000 | shuf --random-source=<(yes) >"$scratch/numbers"
spawn run "$BIN/faultline" --server="$server_address" run --local-memory=8MiB -- \
  sort -S 30M --parallel=2 -o "$scratch/sorted" "$scratch/numbers"
kill_agents 0.3 sort
expect "sort" "$(sort -S 30M "$scratch/numbers" | md5sum)" "$(md5sum <"$scratch/sorted")"

# Nothing is left on the server.
expect "volumes that are left" '[]' "$(faultline volume list --output=json | jq -c '[.. | .name? // empty]')"
