#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The same churn over shared memory, anonymous and of a memfd.
. "$(dirname "$0")/functions.sh"
requires_userfaultfd
requires_command jq

for memory in shmem memfd; do
  churn --seconds=8 --seed=21 --memory=$memory
  expect_agent_count fill_eagain_total 100
  expect_agent_count fork_events_total 5
  expect_agent_count remap_events_total 200
  expect_agent_count remove_events_total 200
  expect_agent_count unmap_events_total 200
  expect_operations remove 10
  expect_operations grow 10
done
