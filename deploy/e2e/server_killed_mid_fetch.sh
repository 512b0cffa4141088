#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The server is killed in the middle of the faults of four threads and started again on the same
# store, several times: the target only waits, and reads every byte.
. "$(dirname "$0")/functions.sh"
requires_userfaultfd
requires_command jq

readonly ROUNDS=4
image=$scratch/image
random_image "$image" 41 64
pages=$((64 * 256))
start_server
faultline volume import vm "$image"
start_agent --volume=vm

start_toucher target --volume=vm --reference="$image" --threads=4
expect_out target '^mapped'
tell target check
for ((round = 1; round <= ROUNDS; ++round)); do
  # In the middle: a part of this round's share is there, and the rest is not.
  share=$((pages * round / (ROUNDS + 1)))
  wait_for "page $share of round $round" attached_is ".[0].present_pages >= $share" true
  stop server KILL
  expect "exit status of the server" 137 "$exit_status"
  wait_for "threads that wait for pages" attached_is '.[0].waiting_faults > 0' true
  expect "pages that were present when the server was dead, at most" true \
    "$(attached ".[0].present_pages < $pages")"
  start_server
done
expect_out target "^check $(all_right $pages)$"
tell target unmap
wait_for_exit target
expect "exit status of the target" 0 "$exit_status"
expect_log agent 'fetch of .* failed and is tried again: UNAVAILABLE'
expect_log agent 'pages arrive again'
expect_no_log agent '\] error: '
