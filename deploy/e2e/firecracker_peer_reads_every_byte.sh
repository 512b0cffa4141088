#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A peer that speaks Firecracker's handover, of old and new versions, reads every byte, whether it
# closes its connection at once or keeps it.
. "$(dirname "$0")/functions.sh"
requires_root "a userfaultfd for faults of the kernel, as Firecracker opens it,"
requires_command jq

image=$scratch/image
random_image "$image" 21 16
pages=$((16 * 256))
start_server
faultline volume import vm "$image"
start_agent --volume=vm

for how in "" --stay --old "--stay --old"; do
  # shellcheck disable=SC2086
  found=$(timeout $PATIENCE "$BIN/firecracker_peer" --socket="$agent_socket" --reference="$image" \
    --regions=2 --region-bytes=$((8 << 20)) $how)
  expect "what the peer ($how) has read" \
    "region 0 $(all_right $((pages / 2)))"$'\n'"region 1 $(all_right $((pages / 2)))" "$found"
done
wait_for "all attachments to have ended" attached_is length 0
expect_log agent 'attachment 1 \(pid [0-9]+, volume vm\): began, 2 mappings, 4096 pages'
expect_log agent 'attachment 1 .*: ended, the process has ended; 4096 faults'
expect_no_log agent 'warning|error'

# More than the volume has: refused. Nobody can tell the peer, and it would hang: it is killed.
status=0
timeout $PATIENCE "$BIN/firecracker_peer" --socket="$agent_socket" --reference="$image" \
  --regions=3 --region-bytes=$((8 << 20)) --stay >"$scratch/beyond.out" || status=$?
expect "exit status of a peer that asks for too much" 137 "$status"
expect_log agent 'handover of process [0-9]+ \(firecracker_pee\) failed: .*16777216.*; killed it'
