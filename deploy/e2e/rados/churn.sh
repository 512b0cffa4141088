# SPDX-License-Identifier: Apache-2.0
#
# What the churns on a volume in RADOS share; sourced after functions.sh.
requires_userfaultfd
requires_command jq
[[ -n ${FAULTLINE_RADOS:-} ]] ||
  fail "FAULTLINE_RADOS names no cluster: deploy/rados-cluster start DIR, and FAULTLINE_RADOS=DIR"
cluster() { "$E2E_DIR/../rados-cluster" "$1" "$FAULTLINE_RADOS" "${@:2}"; }

# churn_in_rados NAME FLAGS...: for 20 s, on a namespace of this name; a server is killed every three
# seconds, and an OSD is killed and started again in the middle.
churn_in_rados() {
  local namespace=$1.$$ osd_killer
  shift
  export FAULTLINE_SERVER_RADOS_CONF=$FAULTLINE_RADOS/ceph.conf
  (
    sleep 7
    cluster kill 1
    sleep 4
    cluster osd 1
  ) &
  osd_killer=$!
  churn --store="rados:pages/$namespace" --seconds=20 --kill-server-every=3s --hang-after=30 "$@"
  wait "$osd_killer" || fail "the OSD was not killed and started again"
  cluster wait
}
