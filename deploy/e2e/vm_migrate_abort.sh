#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Where a machine cannot move it goes on at the source: by a signal while it is offered, where the
# other end refuses, and where its state cannot be loaded there. Once it has run at the other end,
# it never goes on by itself, also when that is killed.
. "$(dirname "$0")/functions.sh"
. "$(dirname "$0")/vm/vm.sh"
requires_guest

devices=(-device virtio-rng-pci)
start_source source

# goes_on: the source ticks, and gets through passes.
goes_on() {
  wait_for "ticks of the source" ticks_reach source $(($(ticks_of source) + 20))
  wait_for "a pass of the source" passes_reach source $(($(passes_of source) + 1))
  expect_no_bad source
}
# offer_fails REGEX: with this message.
offer_fails() {
  wait_for_exit offer
  expect "the end of the offer" 1 "$exit_status"
  expect_match "what it says" "$1" "$(tail -n 1 "$scratch/offer.log")"
}

offer source
stop offer TERM
expect "an offer that nobody took" 1 "$exit_status"
goes_on

offer source
qemu_command other "memory-backend-ram,id=mem0,size=128M"
fails "$BIN/faultline" vm accept --from="$offered_at" -- "${qemu[@]}" -m 128
expect_match "another machine" "start QEMU with -m $RAM_MIB" "$message"
offer_fails "the other end says: .*start QEMU with -m $RAM_MIB"
goes_on

offer source
devices=()
accept unloadable
wait_for_exit unloadable
expect "an accept that cannot load" 1 "$exit_status"
expect_log unloadable "QEMU ended with status 1 while loading the device state"
offer_fails "the other end says: .*; the machine goes on here"
goes_on
devices=(-device virtio-rng-pci)

offer source
accept killed --lazy
expect_log killed '"event":"running"'
expect_log offer '"event":"running"'
stopped_at=$(ticks_of source)
wait_for "ticks at the other end" ticks_reach killed $((stopped_at + 20))
qemu_pid=$(jq -r 'select(.event == "running").pid' "$scratch/killed.log")
stop killed KILL
offer_fails "the other end was killed .* stays paused"
expect "the source's last tick" "$stopped_at" "$(ticks_of source)"
wait_for "the other end's QEMU to be gone" test ! -e "/proc/$qemu_pid"
is_alive source || fail "the source has ended"
expect_no_bad source
expect_no_bad killed
