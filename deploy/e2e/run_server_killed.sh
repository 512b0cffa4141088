#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The page server of a program on far memory is killed with -9 and started again, several times: the
# program waits, and not one of its writes is lost.
. "$(dirname "$0")/functions.sh"
requires_userfaultfd
requires_command jq

start_server
spawn run "$BIN/faultline" --server="$server_address" run --local-memory=16MiB --verbose -- \
  "$BIN/faultline-workload" gups --size=48MiB --operations=60000
for round in 1 2 3 4; do
  sleep 0.7
  if has_exited run; then break; fi
  kill -KILL "${pid[server]}"
  wait_for_exit server
  sleep 0.3
  start_server
done
((round > 1)) || fail "it has ended before a server was killed"
wait_for_exit run
expect "the exit status" 0 "$exit_status"
expect_match "its verdict" 'all bytes right' "$(cat "$scratch/run.out")"
