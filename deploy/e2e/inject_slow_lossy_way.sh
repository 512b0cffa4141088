#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# An agent whose way to the server is made slow and lossy (--inject): every byte is right, no fault
# is answered sooner than it may be, and what is lost is fetched again.
. "$(dirname "$0")/functions.sh"
requires_userfaultfd
requires_command jq

image=$scratch/image
random_image "$image" 71 4
start_server
faultline volume import vm "$image"

start_agent --volume=vm --inject=ssd,latency=5ms,jitter=1ms,loss=0.05,seed=3
expect_log agent \
  'the way to the page server is made worse: latency=5ms,jitter=1ms,bandwidth=24gbit,loss=0.05,seed=3'
start_toucher target --volume=vm --reference="$image" --threads=4
expect_out target '^mapped'
tell target 'check 0 512'
expect_out target "^check $(all_right 512)$"
expect "faults that were answered too soon" true \
  "$(attached '.[0].fault_p50_us >= 4000')"
expect "lost fetches that were tried again" true "$(attached '.[0].fetch_retries_total > 0')"
tell target unmap
wait_for_exit target
expect "exit status of the target" 0 "$exit_status"
stop agent TERM
expect "exit status of the agent" 0 "$exit_status"

fails "$BIN/faultline-agent" --inject=latency=slow
expect_match "message" '--inject.*latency=slow: "slow" is no duration' "$message"
