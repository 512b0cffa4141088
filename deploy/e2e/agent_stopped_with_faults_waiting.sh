#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# SIGTERM to the agent while threads of a target wait for pages: under the policy poison they get
# SIGBUS and what was filled stays, under kill the target is killed. No page turns into zeros.
. "$(dirname "$0")/functions.sh"
requires_userfaultfd
requires_linux 6.6 "UFFDIO_POISON"
requires_command jq

image=$scratch/image
random_image "$image" 71 1
start_server
faultline volume import vm "$image"

# begin POLICY: four threads wait for pages 16 to 31, of which none will come.
begin() {
  start_agent --fault-policy="$1" --fault-deadline=10m
  start_toucher target --volume=vm --reference="$image" --threads=4 --on-agent-loss=wait
  expect_out target '^mapped'
  tell target 'check 0 16'
  expect_out target "^check $(all_right 16)$"
  stop server KILL
  tell target 'check 0 32'
  wait_for "four waiting threads" attached_is '.[0].waiting_faults' 4
}

echo "poison"
begin poison
stop agent TERM
expect "exit status of the agent" 0 "$exit_status"
expect_out target \
  '^check pages=32 right=16 sigbus=16 wrong=0 sigbus_pages=16,17,.*,30,31 first_wrong=none$'
# The whole volume, from now on without an agent.
tell target check
expect_out target '^check pages=256 right=16 sigbus=240 wrong=0 '
expect_log agent 'attachment 1 .*: ended, the agent stops; .* 240 poisoned'
[[ ! -e $agent_socket ]] || fail "the agent has left its socket behind"
stop target KILL

echo "kill"
start_server
begin kill
stop agent TERM
expect "exit status of the agent" 0 "$exit_status"
wait_for_exit target
expect "exit status of the target" 137 "$exit_status"
expect_log agent 'attachment 1 .*: ended with pages that were not fetched; the process is killed'
