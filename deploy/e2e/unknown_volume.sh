#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Whoever asks for a volume that does not exist is told its name: commands, and targets through the
# agent. A volume that is deleted under a target ends its faults by the policy.
. "$(dirname "$0")/functions.sh"
requires_userfaultfd
requires_linux 6.6 "UFFDIO_POISON"
requires_command jq

start_server
missing='there is no volume or snapshot "nope"'
for command in "stat nope" "export nope $scratch/x" "snapshot nope s" "clone nope c" "delete nope" \
  "trim nope --offset=0 --length=4KiB"; do
  # shellcheck disable=SC2086
  fails faultline volume $command
  expect "exit status of $command" 1 "$exit_status"
  expect_match "the message of $command" "$missing" "$message"
done
[[ ! -e $scratch/x ]] || fail "an export that failed has left a file"

start_agent
fails "$BIN/toucher" --socket="$agent_socket" --volume=nope
expect "exit status of the target" 2 "$exit_status"
expect_match "the message to the target" "^error -121 .*$missing" "$message"

image=$scratch/image
random_image "$image" 121 1
faultline volume import vm "$image"
start_toucher target --volume=vm --reference="$image"
expect_out target '^mapped'
tell target 'check 0 8'
expect_out target "^check $(all_right 8)$"
faultline volume delete vm
tell target 'check 0 10'
expect_out target '^check pages=10 right=8 sigbus=2 wrong=0 sigbus_pages=8,9 first_wrong=none$'
expect_log agent 'attachment 1 .*volume vm.* cannot be had: NOT_FOUND: .*SIGBUS'
