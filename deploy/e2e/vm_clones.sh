#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Four machines go on from one snapshot at once, each with its own memory: they go different ways,
# no word of any is wrong, and what was saved stays as it was, so that a fifth begins where they did.
. "$(dirname "$0")/functions.sh"
. "$(dirname "$0")/vm/vm.sh"
requires_guest

save_a_machine
digest() {
  faultline volume export vm "$scratch/ram" >/dev/null
  sha256sum <"$scratch/ram"
  rm "$scratch/ram"
}
saved=$(digest)
saved_pass=$(passes_of source)

clones=(one two three four)
for name in "${clones[@]}"; do restore $name --drain; done
for name in "${clones[@]}"; do
  expect_event $name resumed
  wait_for "passes of $name" passes_reach $name $((saved_pass + 2))
done
# Each has ticked for another while, so that no two have the same memory by now.
expect "attachments" 4 "$(attached length)"
for name in "${clones[@]}"; do
  expect_event $name complete
  expect "the first tick of $name" "$(first_tick one)" "$(first_tick $name)"
  qemu_pid=$(event $name resumed pid)
  expect "attachments of $name" 1 "$(attached "[.[] | select(.pid == $qemu_pid)] | length")"
  # One at a time goes ahead of the others.
  pass=$(passes_of $name)
  wait_for "a further pass of $name" passes_reach $name $((pass + 1))
  expect_no_bad $name
  stop $name TERM
  echo "$name: passes $saved_pass to $(passes_of $name), ticks $(first_tick $name) to $(ticks_of $name)"
done
((4 == $(for name in "${clones[@]}"; do ticks_of $name; done | sort -u | wc -l))) ||
  fail "two of them have gone the same way"
expect "the snapshot" "$saved" "$(digest)"
restore fifth --lazy
wait_for "a pass of a fifth" passes_reach fifth $((saved_pass + 1))
expect "the first tick of a fifth" "$(first_tick one)" "$(first_tick fifth)"
expect_no_bad fifth
