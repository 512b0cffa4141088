#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A churn on a volume in RADOS whose server is killed every three seconds, each next one fencing the
# one before, while an OSD is killed and started again in the middle: every byte is right, nothing
# hangs, and no operation takes much longer than the OSDs' grace for each other.
. "$(dirname "$0")/functions.sh"
requires_userfaultfd
requires_command jq
[[ -n ${FAULTLINE_RADOS:-} ]] ||
  fail "FAULTLINE_RADOS names no cluster: deploy/rados-cluster start DIR, and FAULTLINE_RADOS=DIR"
cluster() { "$E2E_DIR/../rados-cluster" "$1" "$FAULTLINE_RADOS" "${@:2}"; }

# The grace, two seconds, and what a machine takes whose two processors have the cluster and other
# tests to run as well.
readonly LONGEST_US=$((5000000 + 2000000 + 5000000))
export FAULTLINE_SERVER_RADOS_CONF=$FAULTLINE_RADOS/ceph.conf
(
  sleep 7
  cluster kill 1
  sleep 4
  cluster osd 1
) &
osd_killer=$!
churn --store="rados:pages/churn.$$" --seconds=20 --seed=24 --kill-server-every=3s --hang-after=30
wait "$osd_killer" || fail "the OSD was not killed and started again"
cluster wait
expect_agent_count fetch_retries_total 1
expect_agent_count copied_pages_total 1000
expect_agent_count fork_events_total 1
worst=$(jq .target.worst_us "$scratch/churn.json")
((${worst%.*} < LONGEST_US)) || fail "an operation took $worst us"
