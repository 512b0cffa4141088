#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# 20,000 single pages are discarded while the agent fetches all the rest, as a balloon does when a
# machine has just been moved: they read as zeros, the others as they were.
. "$(dirname "$0")/functions.sh"
requires_userfaultfd
requires_command jq

churn --storm=20000 --seed=23
expect_agent_count remove_events_total 20000
expect_operations dontneed 20000
