#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# kill -9 of the agent: libfaultline ends the process with its message; told to wait, it waits, what
# was filled stays, and no page turns into zeros. An agent that starts again takes the socket over and
# goes on with who has waited.
. "$(dirname "$0")/functions.sh"
requires_userfaultfd
requires_command jq

image=$scratch/image
random_image "$image" 81 4
start_server
faultline volume import vm "$image"
start_agent --volume=vm

for name in dies waits; do
  loss=kill
  [[ $name == waits ]] && loss=wait
  start_toucher $name --volume=vm --reference="$image" --threads=2 --on-agent-loss=$loss
  expect_out $name '^mapped'
  tell $name 'check 0 16'
  expect_out $name "^check $(all_right 16)$"
done
stop agent KILL
expect "exit status of the agent" 137 "$exit_status"

wait_for_exit dies
expect "exit status of the target, SIGABRT" 134 "$exit_status"
expect_log dies 'faultline: the agent is gone, and with it the pages of volume vm .*: killing process'

# Nothing answers any more: the threads wait, and say nothing.
second_check_is_right() { (($(grep -c "^check $(all_right 16)$" "$scratch/waits.out") == 2)); }
tell waits 'check 0 16'
wait_for "the pages that are there" second_check_is_right
tell waits 'check 16 2'
# Each of its two threads is in a page fault that nobody serves.
faulting_threads() {
  (($(cat /proc/"${pid[waits]}"/task/*/stack 2>/dev/null | grep -c '[ ]handle_userfault') == 2))
}
if [[ $(id -u) -eq 0 ]]; then wait_for "two threads in a page fault" faulting_threads; fi
is_alive waits || fail "the target that is to wait has ended"
expect "what the waiting target has said" 3 "$(wc -l <"$scratch/waits.out")"

start_agent --volume=vm
expect_log agent "attachment 2 \(pid ${pid[waits]}, volume vm\): adopted, 1024 pages, 16 of them there"
expect_out waits "^check $(all_right 2)$"
tell waits check
expect_out waits "^check $(all_right 1024)$"
tell waits unmap
wait_for_exit waits
expect "exit status of the target that has waited" 0 "$exit_status"
expect "attachments" 0 "$(attached length)"
expect_match "what a new target reads" "check $(all_right 1024)" \
  "$(touch_with --volume=vm --reference="$image" <<<check)"
