#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A churn on a volume in RADOS that two servers of one namespace serve at the same time. One after the
# other is killed every three seconds and started again, and an OSD is killed and started again in the
# middle: every byte is right, and nothing hangs.
. "$(dirname "$0")/functions.sh"
. "$E2E_DIR/rados/churn.sh"

churn_in_rados churn2 --servers=2 --seed=25
expect_agent_count copied_pages_total 1000
expect_agent_count remap_events_total 10
expect_agent_count fork_events_total 1
expect_agent_count remove_events_total 10
