#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A machine is saved and goes on; two machines started from it at the same time go on from where it
# was saved, each with its own memory, one of them with everything fetched behind its faults. No
# word of any is wrong.
. "$(dirname "$0")/functions.sh"
. "$(dirname "$0")/vm/vm.sh"
requires_guest

start_server
start_agent
start_source source
wait_for "ticks" ticks_reach source 50
faultline --output=json vm save --qmp="$scratch/source.qmp" --volume=vm --continue \
  2>"$scratch/save.out"
cat "$scratch/save.out"
expect "what was saved" vm "$(jq -r .volume "$scratch/save.out")"
# As the guest's console had it when it was stopped; the source has gone on since.
saved_pass=$(passes_of source)
expect "two volumes" "vm vm-state" \
  "$(faultline --output=json volume list | jq -r '[.[].name] | join(" ")')"

fails faultline vm save --qmp="$scratch/source.qmp" --volume=vm
expect_match "a second machine of that name" "vm exists already; .* --replace" "$message"

restore lazy --lazy --working-set=both
restore drained --drain
for name in lazy drained; do
  expect_log $name '"event":"resumed"'
  grep -h resumed "$scratch/$name.log"
  wait_for "a tick of $name" ticks_reach $name 1
done
expect "the tick that both go on with" "$(first_tick lazy)" "$(first_tick drained)"
(($(first_tick lazy) > 50)) || fail "they go on with tick $(first_tick lazy)"
for name in lazy drained; do
  wait_for "passes of $name" passes_reach $name $((saved_pass + 1))
  expect_no_bad $name
  # Its first line goes on where the saved machine was, and nothing was booted.
  if says $name.console '^ready'; then fail "$name has booted"; fi
done
expect_log drained '"event":"complete"'
grep -h complete "$scratch/drained.log"
expect_no_bad source
attached_is length 2 || fail "there are $(attached length) attachments"

# The end of QEMU is the end of the command, and a signal to the command is the end of QEMU.
stop lazy TERM
expect "the end by a signal" 0 "$exit_status"
qemu_pid=$(jq -r 'select(.event == "resumed").pid' "$scratch/drained.log")
kill -TERM "$qemu_pid"
wait_for_exit drained
expect "the end of QEMU" 0 "$exit_status"
wait_for "all attachments to have ended" attached_is length 0
((0 < $(faultline --output=json volume working-set vm | jq .pages))) || fail "no working set"
