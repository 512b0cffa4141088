#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The benchmarks of virtual machines move and restore a small one once, have its guest check every
# word, and give out what they are asked for. How fast it is is not judged here.
. "$(dirname "$0")/functions.sh"
. "$(dirname "$0")/vm/vm.sh"
requires_guest

bench() {
  timeout --kill-after=1 "$PATIENCE" "$BIN/faultline" bench "$@" --ram-mib=128 --busy-mib=24 \
    --repetitions=1 --directory="$shm"
}
bench_vm() { bench vm "$@"; }
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

mkdir "$scratch/store"
bench vm-restore --guest="$scratch/guest" --store="$scratch/store" --output=json \
  >"$scratch/restore.json" || fail "bench vm-restore has failed"
jq -e '
  .benchmark == "vm-restore" and (.configuration | test("no word was wrong$")) and
  ([.figures[] | "\(.name) / \(.floor_name)"] == [
    "first output, first restore / from a file", "first output, second restore / from a file",
    "faults, second restore / first restore", "first output, the last of 4 at once / one",
    "read from the store, 4 at once / one"]) and
  (.figures[2] | .floor.median >= 6144 and .faultline.median < .floor.median / 2)' \
  "$scratch/restore.json" >/dev/null || fail "bad figures: $(jq -c . "$scratch/restore.json")"
[[ -z $(ls -A "$scratch/store") ]] || fail "left behind: $(ls -A "$scratch/store")"
[[ -z $(ls -A "$shm") ]] || fail "left behind: $(ls -A "$shm")"

# What is missing is said, before anything is started.
fails bench_vm --guest="$scratch/nothing"
expect_match "the message" "no guest in --guest=$scratch/nothing .*make-guest FOLDER makes it" \
  "$message"
fails bench_vm --guest="$scratch/guest" --qemu=no-such-qemu
expect_match "the message" "there is no no-such-qemu; install it" "$message"
fails bench_vm --guest="$scratch/guest" --link=fast
expect_match "the message" "no speed of a link" "$message"
