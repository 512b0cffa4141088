#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A churn whose agent is killed three times a second, in the middle of whatever it does, and each time
# another goes on in its place: the target only waits, and not one byte is wrong.
. "$(dirname "$0")/functions.sh"
requires_userfaultfd
requires_command jq

for memory in anon memfd; do
  churn --seconds=8 --seed=23 --memory=$memory --no-fork --kill-agent-every=300ms --hang-after=30
  expect_agent_count kills_total 10
  expect_agent_count remap_events_total 100
  expect_agent_count remove_events_total 100
done
