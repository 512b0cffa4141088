#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A churn on a volume in RADOS whose server is killed every three seconds, each next one fencing the
# one before, while an OSD is killed and started again in the middle: every byte is right, nothing
# hangs, and no operation takes much longer than the OSDs' grace for each other.
. "$(dirname "$0")/functions.sh"
. "$E2E_DIR/rados/churn.sh"

# The grace, two seconds, and what a machine takes whose two processors have the cluster and other
# tests to run as well.
readonly LONGEST_US=$((5000000 + 2000000 + 5000000))
churn_in_rados churn --seed=24
expect_agent_count fetch_retries_total 1
expect_agent_count copied_pages_total 1000
expect_agent_count fork_events_total 1
worst=$(jq .target.worst_us "$scratch/churn.json")
((${worst%.*} < LONGEST_US)) || fail "an operation took $worst us"
