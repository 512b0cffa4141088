#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Programs on far memory that lock it, fork a hundred children, and do direct I/O and io_uring into
# it, with a quarter of it here: every byte is right. What cannot be taken out stays, also where that
# is more than the budget, which is then exceeded, and said.
. "$(dirname "$0")/functions.sh"
requires_userfaultfd
requires_command jq

start_server
readonly TARGET=$BIN/run_target

# run_target LOCAL_MIB ARGUMENTS...: under `faultline run`, with so much local memory. What it says is
# in $scratch/target.out, the agent's log in target.log.
run_target() {
  local status=0 local_mib=$1
  shift
  rm -f "$scratch/target.stats"
  timeout --kill-after=1 "$((3 * PATIENCE))" "$BIN/faultline" --server="$server_address" run --verbose \
    --local-memory="${local_mib}MiB" --stats="$scratch/target.stats" -- "$TARGET" "$@" \
    >"$scratch/target.out" 2>"$scratch/target.log" || status=$?
  if ((status == 77)); then
    echo "$*: not done, $(grep -v faultline-agent "$scratch/target.log" | head -n 1)"
    return
  fi
  ((status == 0)) || fail "run_target $* ended with $status"
  expect_match "run_target $*" 'all bytes right' "$(cat "$scratch/target.out")"
  echo "$*: $(tr '\n' ' ' <"$scratch/target.out")" \
    "$(jq -r '[.attachments[].evicted_pages_total] | "\(add) pages evicted"' "$scratch/target.stats")"
}
# evicted LEAST: so many pages at least.
evicted() {
  jq -e --argjson least "$1" '[.attachments[].evicted_pages_total] | add >= $least' \
    "$scratch/target.stats" >/dev/null || fail "hardly anything was evicted: $(cat "$scratch/target.stats")"
}

run_target 4 lock 16 2
evicted 10000
expect_no_log target 'budget has room for'
# More than the budget.
run_target 4 lock 16 8
expect_log target 'its memory is locked, .* budget has room for, which is exceeded'
run_target 4 map-locked 8
evicted 1000
run_target 4 lock-future 16

run_target 1 forks 2 100
evicted 1000

run_target 4 direct-io 16 "$scratch/file"
evicted 4000
run_target 4 io-uring 16 "$scratch/file"
evicted 4000
run_target 4 io-uring-fixed 16 "$scratch/file"
# More than the budget is registered.
run_target 4 io-uring-fixed 32 "$scratch/file"

# A program's own DONTNEED, mremap, munmap and fork race the evictions of the same pages.
"$BIN/faultline" --server="$server_address" run --local-memory=4MiB --stats="$scratch/target.stats" -- \
  "$BIN/faultline-workload" allocator-churn --size=16MiB --threads=2 --operations=4000 \
  >"$scratch/target.out"
expect_match "the allocator's churn" 'all bytes right' "$(cat "$scratch/target.out")"
evicted 1000
