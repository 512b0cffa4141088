#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# An upgrade as the operator's guide has it, under threads that read: the server is drained and
# started again, then the agent is killed and the next one goes on. Nobody notices but by waiting.
. "$(dirname "$0")/functions.sh"
requires_userfaultfd
requires_command jq

readonly ROUNDS=3
image=$scratch/image
random_image "$image" 63 64
start_server
faultline volume import vm "$image"
# Pages come slowly, so that there are always some on their way.
start_agent --inject=latency=1ms
start_toucher target --volume=vm --reference="$image" --threads=4 --on-agent-loss=wait
expect_out target '^mapped'
tell target check

resident() { attached '.[0].present_pages // 0'; }
grows() { (($(resident) > $1)) || says target.out '^check'; }
adopted_so_far() {
  (($(count_lines agent.log "attachment 1 (pid ${pid[target]}, volume vm): adopted") == $1))
}
for ((round = 1; round <= ROUNDS; ++round)); do
  now=$(resident)
  wait_for "pages to come before round $round" grows "$now"
  stop server TERM
  expect "exit status of the server" 0 "$exit_status"
  start_server
  now=$(resident)
  wait_for "pages to come from the next server" grows "$now"
  stop agent KILL
  start_agent --inject=latency=1ms
  wait_for "the agent of round $round to go on" adopted_so_far "$round"
done
expect_out target "^check $(all_right $((64 << 8)))$"
tell target unmap
wait_for_exit target
expect "exit status of the target" 0 "$exit_status"
