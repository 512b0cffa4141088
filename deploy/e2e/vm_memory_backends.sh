#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A machine of another type whose RAM is a memfd, in a sandbox, is saved, and restored into each kind
# of RAM; what the first of them has touched is fetched first for those that come later.
. "$(dirname "$0")/functions.sh"
. "$(dirname "$0")/vm/vm.sh"
requires_guest
version=$(qemu-system-x86_64 --version | sed -nE 's/.*version ([0-9.]+).*/\1/p')
[[ $(printf '%s\n' 8.1 "$version" | sort -V | head -n 1) == "$version" ]] ||
  skip "since QEMU 8.1 the RAM of a machine that is saved must be a file"

start_server
start_agent

devices=(-machine q35 -smp 2 -device virtio-balloon-pci "${SANDBOX[@]}")
qemu_command source "memory-backend-memfd,id=mem0,size=${RAM_MIB}M,share=on"
spawn source "${qemu[@]}"
wait_for "the guest's first pass" passes_reach source 1
faultline vm save --qmp="$scratch/source.qmp" --volume=vm --quit
wait_for_exit source
saved_pass=$(passes_of source)

# restore_into BACKEND NAME WORKING_SET: until it has got through a pass, and not a wrong word.
restore_into() {
  backend=$1,id=mem0,size=${RAM_MIB}M
  shift
  restore "$1" --working-set="$2"
  wait_for "a pass of $1" passes_reach "$1" $((saved_pass + 2))
  expect_no_bad "$1"
  if says "$1.console" '^ready'; then fail "$1 has booted"; fi
  faults=$(attached '.[0].faults_total')
  echo "$1: $faults faults"
  stop "$1" TERM
  expect "the end of $1" 0 "$exit_status"
  wait_for "its attachment to have ended" attached_is length 0
}
restore_into memory-backend-ram private both
first_faults=$faults
for kind in memory-backend-ram,share=on memory-backend-memfd,share=on \
  "memory-backend-file,share=on,mem-path=$shm/file.mem"; do
  restore_into "$kind" "${kind%%,*}" replay
  ((2 * faults < first_faults)) || fail "as many faults with the working set: $faults"
done
