#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A churn whose server is killed every two seconds and started again, and some of whose pages come
# late: the target only waits.
. "$(dirname "$0")/functions.sh"
requires_userfaultfd
requires_command jq

churn --seconds=15 --seed=22 --kill-server-every=2s --fetch-delay=50ms --delay-share=0.02 \
  --hang-after=30
expect_agent_count fetch_retries_total 1
expect_agent_count remap_events_total 100
expect_agent_count fork_events_total 5
