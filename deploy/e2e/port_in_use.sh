#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A second server at a port or socket in use, and a second agent at a socket in use, end at once and
# say which address it is; the first ones serve on. A socket that a dead program has left is taken.
. "$(dirname "$0")/functions.sh"

start_server
fails "$BIN/faultline-server" --listen="$server_address" --store=memory:
expect "exit status of the second server" 1 "$exit_status"
expect_match "the message" \
  "cannot listen on $server_address: Address already in use; .*stop it or choose another" "$message"
fails "$BIN/faultline-server" --listen=127.0.0.1:0 --store="$store"
expect "exit status of a second server on one store" 1 "$exit_status"
expect_match "the message" "cannot start: .*$scratch/store" "$message"
faultline volume create vm --size=1MiB

start_agent
fails "$BIN/faultline-agent" --server="$server_address" --socket="$agent_socket"
expect "exit status of the second agent" 1 "$exit_status"
expect_match "the message" "journal $agent_socket.journal is in use by another agent" "$message"
fails "$BIN/faultline-agent" --server="$server_address" --socket="$agent_socket" --journal=none
expect "exit status of a second agent with no journal" 1 "$exit_status"
expect_match "the message" "another process listens on $agent_socket; stop it or choose another" \
  "$message"
echo "not a socket" >"$scratch/file"
fails "$BIN/faultline-agent" --server="$server_address" --socket="$scratch/file"
expect_match "the message" "$scratch/file" "$message"
expect "the file" "not a socket" "$(cat "$scratch/file")"
stop agent KILL
[[ -S $agent_socket ]] || fail "the killed agent's socket is not there to be replaced"
start_agent

stop server TERM
server_address=unix:$scratch/server.sock
start_server
fails "$BIN/faultline-server" --listen="$server_address" --store=memory:
expect_match "the message" "cannot listen on $server_address: Address already in use" "$message"
stop server KILL
start_server
expect_match "the volumes" $'\nvm ' "$(faultline volume list)"
