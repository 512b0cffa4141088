#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Four threads do everything to private memory that a program can do to memory, forks included,
# while the agent fills it in parallel and fetches what is left: every byte is right, nothing hangs,
# and it was no easy walk: fills were held off by changes and tried again, and every kind of event
# came.
. "$(dirname "$0")/functions.sh"
requires_userfaultfd
requires_command jq

churn --seconds=20 --seed=20
expect_agent_count fill_eagain_total 1000
expect_agent_count parks_total 1000
expect_agent_count fork_events_total 20
expect_agent_count remap_events_total 1000
expect_agent_count remove_events_total 500
expect_agent_count unmap_events_total 1000
expect_agent_count drained_pages_total 1000
expect_agent_count copied_pages_total 1000
for name in read write dontneed free move move-vacated move-over grow shrink dontunmap unmap \
  map-over protect fork-advice fork fork-all; do
  expect_operations "$name" 1
done
