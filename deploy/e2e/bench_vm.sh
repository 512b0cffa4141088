#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The benchmark of live migration moves a small machine once by each means, has its guest check
# every word, and gives out what it is asked for. What it measures is not judged here.
. "$(dirname "$0")/functions.sh"
. "$(dirname "$0")/vm/vm.sh"
requires_guest

bench_vm() {
  timeout --kill-after=1 "$PATIENCE" "$BIN/faultline" bench vm --ram-mib=128 --busy-mib=24 \
    --repetitions=1 --directory="$shm" "$@"
}
bench_vm --guest="$scratch/guest" --peers=preempt --output=json --csv="$scratch/vm.csv" \
  >"$scratch/vm.json" || fail "bench vm has failed"
jq -e '
  def is_spread: [.median, .min, .max] | all(type == "number" and . > 0);
  .benchmark == "vm" and
  (.configuration | test("faultline: 1 moved with no wrong word; post-copy, preempt: 1 moved with no wrong word$")) and
  ([.figures[].name] == ["stop to RESUME", "stop to first output", "stop to all pages there",
    "longest gap of ticks", "ticks, first second of output"]) and
  all(.figures[]; .floor_name == "post-copy, preempt" and
    (.faultline | is_spread) and (.floor | is_spread) and (.ratio | is_spread)) and
  any(.details[]; .name == "faults, faultline" and (.faultline | is_spread))' \
  "$scratch/vm.json" >/dev/null || fail "bad figures: $(jq -c . "$scratch/vm.json")"
expect "lines of the CSV file" "$(jq '.figures + .details | length + 1' "$scratch/vm.json")" \
  "$(wc -l <"$scratch/vm.csv")"
[[ -z $(ls -A "$shm") ]] || fail "left behind: $(ls -A "$shm")"

# What is missing is said, before anything is started.
fails bench_vm --guest="$scratch/nothing"
expect_match "the message" "no guest in --guest=$scratch/nothing .*make-guest FOLDER makes it" \
  "$message"
fails bench_vm --guest="$scratch/guest" --qemu=no-such-qemu
expect_match "the message" "there is no no-such-qemu; install it" "$message"
fails bench_vm --guest="$scratch/guest" --link=fast
expect_match "the message" "no speed of a link" "$message"
