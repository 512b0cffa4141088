#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The agent starts before the server. A peer that takes no answer waits, and finishes once the
# server is there; one that takes an answer gets an error that says what is wrong, after its time.
. "$(dirname "$0")/functions.sh"
requires_root "a Firecracker handover"
requires_command jq

image=$scratch/image
random_image "$image" 31 4
start_server
faultline volume import vm "$image"
stop server TERM
expect "exit status of the server" 0 "$exit_status"

start_agent --volume=vm --handover-timeout=2s
spawn peer "$BIN/firecracker_peer" --socket="$agent_socket" --reference="$image" --regions=1 \
  --region-bytes=$((4 << 20))
expect_log agent 'volume vm for process [0-9]+ \(firecracker_pee\) cannot be opened yet, trying again'

fails touch_with --volume=vm </dev/null
expect "exit status of a target that cannot have its volume" 2 "$exit_status"
says toucher.log "^error -[0-9]+ .*$server_address" ||
  fail "the message does not name the server: $(cat "$scratch/toucher.log")"

start_server
wait_for_exit peer
expect "exit status of the peer that waited" 0 "$exit_status"
expect "what it has read" "region 0 $(all_right 1024)" "$(cat "$scratch/peer.out")"
expect_match "what a later target reads" "check $(all_right 1024)" \
  "$(touch_with --volume=vm --reference="$image" <<<check)"
