#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The server stays away: after the fault deadline the policy decides. Poison: the accesses get
# SIGBUS, and pages that are there stay. Kill: the target is killed. Wait: it waits on. The log says
# why, and nothing reads as zeros.
. "$(dirname "$0")/functions.sh"
requires_userfaultfd
requires_linux 6.6 "UFFDIO_POISON"
requires_command jq

image=$scratch/image
random_image "$image" 51 1

# begin POLICY: with a target whose first 16 pages are there, and no server any more.
begin() {
  start_server
  start_agent --fault-policy="$1" --fault-deadline=1s
  start_toucher target --volume=vm --reference="$image" --threads=4
  expect_out target '^mapped'
  tell target 'check 0 16'
  expect_out target "^check $(all_right 16)$"
  stop server KILL
}

start_server
faultline volume import vm "$image"
stop server TERM

echo "poison"
begin poison
tell target 'check 0 24'
expect_out target '^check pages=24 right=16 sigbus=8 wrong=0 sigbus_pages=16,17,18,19,20,21,22,23 '
expect_log agent "attachment 1 .*volume vm.* cannot be had: .*$server_address.*gets SIGBUS from now on"
tell target unmap
wait_for_exit target
expect "exit status of the target" 0 "$exit_status"
stop agent TERM
expect "exit status of the agent" 0 "$exit_status"

echo "kill"
begin kill
tell target 'check 0 24'
wait_for_exit target
expect "exit status of the killed target" 137 "$exit_status"
expect_log agent "attachment 1 .*volume vm.* cannot be had: .*; the process is killed"
stop agent TERM

echo "wait"
begin wait
tell target 'check 0 24'
wait_for "threads that wait" attached_is '.[0].waiting_faults > 0' true
# Longer than the deadline: more retries than fit into it.
wait_for "retries" attached_is '.[0].fetch_retries_total > 20' true
is_alive target || fail "the target has not waited"
start_server
expect_out target "^check $(all_right 24)$"
