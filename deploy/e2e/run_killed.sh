#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# `faultline run` is killed with -9: its program ends with it, and its agent deletes what they had on
# the server and on this machine. Where the agent is killed, too, or the server is away, the next run
# does.
. "$(dirname "$0")/functions.sh"
requires_userfaultfd
requires_command jq

start_server
# Directories of runs that have volumes on this server.
directories() {
  grep -lF "\"$server_address\"" {/dev/shm,/tmp}/faultline-run.*/owner 2>/dev/null || true
}
volumes() { faultline volume list --output=json | jq -c '[.. | .name? // empty]'; }
nothing_is_left() { [[ $(volumes) == '[]' && -z $(directories) ]]; }
some_is_left() { [[ $(volumes) == *'"run.'* && -n $(directories) ]]; }
one_directory() { (($(directories | wc -l) == 1)) && [[ $(volumes) == *'"run.'* ]]; }

# start_run: it, as run, and its program and its agent, all at work.
start_run() {
  spawn run "$BIN/faultline" --server="$server_address" run --local-memory=2MiB -- \
    "$BIN/faultline-workload" gups --size=8MiB --operations=1000000000
  wait_for "the program" child program faultline-workl
  wait_for "the agent" child agent faultline-agent
  wait_for "its volume" some_is_left
}
# child NAME COMMAND: ${pid[NAME]} is the child of run that executes it.
child() {
  local found
  found=$(pgrep -P "${pid[run]}" -x "$2") && pid[$1]=$found
}
all_have_ended() { has_exited program && has_exited agent; }

start_run
stop run KILL
wait_for "the program and the agent to end" all_have_ended
wait_for "everything to be removed" nothing_is_left

# With its agent: first the run is held, so that it starts no other.
start_run
kill -STOP "${pid[run]}"
kill -KILL "${pid[agent]}"
stop run KILL
wait_for "the program and the agent to end" all_have_ended
some_is_left || fail "nothing is left although nobody was left to remove it"
faultline run -- true
nothing_is_left || fail "the next run has not collected it: $(volumes) $(directories)"

# While the server is away its agent cannot delete anything.
start_run
stop server KILL
stop run KILL
wait_for "the program and the agent to end" all_have_ended
start_server
some_is_left || fail "nothing is left although the server was away"
# A run that goes on is none that is collected.
spawn other "$BIN/faultline" --server="$server_address" run -- sleep 1000
wait_for "the other run to collect it" one_directory
faultline run -- true
expect "directories of the run that goes on" 1 "$(directories | wc -l)"
stop other TERM
expect "the exit status of the other run" 143 "$exit_status"
nothing_is_left || fail "a run that has ended has left $(volumes) $(directories)"
