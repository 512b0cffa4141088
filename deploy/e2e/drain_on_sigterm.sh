#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# SIGTERM: the server lets what is under way finish, refuses what is new, and ends with 0. What does
# not finish in time is cancelled, and fails with a message.
. "$(dirname "$0")/functions.sh"

start_server --drain-timeout=60s
random_image "$scratch/image" 191 64
faultline volume import vm "$scratch/image"

# begin: an export that has begun and cannot end, since nobody reads what it writes.
begin() {
  rm -f "$scratch/pipe" "$scratch/export.log"
  mkfifo "$scratch/pipe"
  stdin=$scratch/pipe spawn reader cat
  spawn export bash -c "exec '$BIN/faultline' --server='$server_address' volume export vm - \
    >'$scratch/pipe'"
  wait_for "the first bytes" test -s "$scratch/reader.out"
  kill -STOP "${pid[reader]}"
}

begin
kill -TERM "${pid[server]}"
expect_log server 'got Terminated; draining for at most 1m'
fails timeout 20 "$BIN/faultline" --server="$server_address" volume list
is_alive server || fail "the server did not wait for the export"
is_alive export || fail "the export was cut off"
kill -CONT "${pid[reader]}"
wait_for_exit export
expect "exit status of the export" 0 "$exit_status"
wait_for_exit reader
cmp "$scratch/image" "$scratch/reader.out" || fail "the export is not whole"
wait_for_exit server
expect "exit status of the server" 0 "$exit_status"
expect_log server 'drained; everything is durable'

start_server --drain-timeout=500ms
rm "$scratch/reader.out"
begin
stop server TERM
expect "exit status of the server that did not wait" 0 "$exit_status"
kill -CONT "${pid[reader]}"
wait_for_exit export
expect "exit status of the export that was cancelled" 1 "$exit_status"
[[ -s $scratch/export.log ]] || fail "the export that was cancelled says nothing"
