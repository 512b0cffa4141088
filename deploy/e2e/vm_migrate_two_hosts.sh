#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A machine moves between two hosts that have nothing but a cable in common, with everything fetched
# or with nothing but what is touched. The source listens on all of its addresses; the other end
# finds its pages by the one that it knows. Where it does not take the machine, that goes on.
. "$(dirname "$0")/functions.sh"
. "$(dirname "$0")/vm/vm.sh"
requires_guest
make_hosts

start_source source
offer source 0.0.0.0:7500
fails "${at_destination[@]}" "$BIN/faultline" vm accept --from=$SOURCE_IP:7500 -- \
  qemu-system-x86_64 -accel tcg -machine none -display none
wait_for_exit offer
expect "the end of an offer that was not taken" 1 "$exit_status"
wait_for "ticks of the source" ticks_reach source $(($(ticks_of source) + 20))

for name in drained lazy; do
  offer source 0.0.0.0:7500
  offered_at=$SOURCE_IP:7500
  [[ $name == drained ]] && way=--drain || way=--lazy
  accept $name $way
  expect_event offer running
  expect_goes_on $name "$(ticks_of source)" "$(passes_of source)"
  expect_match "where its pages come from" "^$SOURCE_IP:[0-9]+$" "$(event $name running pages)"
  if [[ $name == drained ]]; then
    expect_event $name complete
    wait_for_exit offer
    stop $name TERM
    cat "$scratch/offer.log"
    rm "$scratch/source.console" "$shm/source.mem"
    start_source source
  fi
done
# The end of the machine, in order, is the end of what the source is needed for.
kill -TERM "$(event lazy running pid)"
for name in lazy offer source; do
  wait_for_exit $name
  expect "the end of $name" 0 "$exit_status"
done
