#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A churn on a volume in RADOS that two servers of one namespace serve at the same time. One after the
# other is killed every three seconds and started again, and an OSD is killed and started again in the
# middle: every byte is right, and nothing hangs.
. "$(dirname "$0")/functions.sh"
requires_userfaultfd
requires_command jq
[[ -n ${FAULTLINE_RADOS:-} ]] ||
  fail "FAULTLINE_RADOS names no cluster: deploy/rados-cluster start DIR, and FAULTLINE_RADOS=DIR"
cluster() { "$E2E_DIR/../rados-cluster" "$1" "$FAULTLINE_RADOS" "${@:2}"; }

export FAULTLINE_SERVER_RADOS_CONF=$FAULTLINE_RADOS/ceph.conf
(
  sleep 7
  cluster kill 1
  sleep 4
  cluster osd 1
) &
osd_killer=$!
churn --store="rados:pages/churn2.$$" --servers=2 --seconds=20 --seed=25 --kill-server-every=3s \
  --hang-after=30
wait "$osd_killer" || fail "the OSD was not killed and started again"
cluster wait
expect_agent_count copied_pages_total 1000
expect_agent_count remap_events_total 10
expect_agent_count fork_events_total 1
expect_agent_count remove_events_total 10
