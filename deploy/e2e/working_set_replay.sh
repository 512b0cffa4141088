#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The pages that a program's faults ask for are recorded, kept with the volume, and in place when
# the same program starts again, also from a clone: hardly a fault is left. A second program adds
# its own.
. "$(dirname "$0")/functions.sh"
requires_userfaultfd
requires_command jq

readonly TOUCHES=2000
# run_program NAME SEED VOLUME: touches pages by its seed; sets $faults to how many it waited for.
run_program() {
  rm -f "$scratch/$1.in"
  mkfifo "$scratch/$1.in"
  local keep
  exec {keep}<>"$scratch/$1.in"
  stdin=$scratch/$1.in spawn "$1" "$BIN/faultline-touch" --socket="$agent_socket" --volume="$3" \
    --mode=random --touches=$TOUCHES --seed="$2" --hold
  expect_out "$1" '"touches"'
  faults=$(attached '.[0].faults_total')
  kill "${pid[$1]}"
  wait_for_exit "$1"
  exec {keep}<&-
  wait_for "the attachment to have ended" attached_is length 0
  echo "$1: $faults faults"
}
recorded() { faultline --output=json volume working-set "$1" | jq .pages; }
grown() { (($(recorded "$1") > TOUCHES)); }
recorded_is() { [[ $(recorded "$1") == "$2" ]]; }

start_server
random_image "$scratch/image" 1 64
faultline volume import vm "$scratch/image"

start_agent --working-set=record
run_program first 7 vm
expect "faults of the first run" $TOUCHES "$faults"
wait_for "the working set to be kept" recorded_is vm $TOUCHES
faultline volume snapshot vm before
faultline volume clone before vm2
stop agent TERM

start_agent --working-set=both --replay-wait=60s
for volume in vm before vm2; do
  run_program "again-$volume" 7 $volume
  ((faults <= TOUCHES / 20)) || fail "$faults faults are left of $TOUCHES"
done
run_program other 8 vm
wait_for "what the other program asked for to be added" grown vm
run_program other-again 8 vm
((faults <= TOUCHES / 20)) || fail "$faults faults are left of $TOUCHES"
expect_no_log agent '\] error'
