#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Eight processes with eight volumes at once, through one agent: each gets its own bytes.
. "$(dirname "$0")/functions.sh"
requires_userfaultfd
requires_command jq

readonly TARGETS=8
start_server
for ((i = 1; i <= TARGETS; ++i)); do
  random_image "$scratch/image$i" $((10 + i)) $i
  faultline volume import "vm$i" "$scratch/image$i"
done
start_agent

for ((i = 1; i <= TARGETS; ++i)); do
  start_toucher "target$i" --volume="vm$i" --reference="$scratch/image$i" --threads=2
done
for ((i = 1; i <= TARGETS; ++i)); do expect_out "target$i" "^mapped .* pages=$((i * 256))$"; done
expect "the attachments" "vm1 vm2 vm3 vm4 vm5 vm6 vm7 vm8" \
  "$(attached '[.[].volume] | sort | join(" ")')"
for ((i = 1; i <= TARGETS; ++i)); do tell "target$i" race; done
for ((i = 1; i <= TARGETS; ++i)); do
  expect_out "target$i" "^race $(all_right $((2 * i * 256)))$"
  tell "target$i" unmap
done
for ((i = 1; i <= TARGETS; ++i)); do
  wait_for_exit "target$i"
  expect "exit status of target$i" 0 "$exit_status"
done
wait_for "all attachments to have ended" attached_is length 0
expect_no_log agent 'warning|error'
