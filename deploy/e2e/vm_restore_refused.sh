#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# What cannot be saved or restored is refused with what to change, and leaves nothing behind: no
# QEMU, no attachment, no volume; a machine that was to be saved goes on.
. "$(dirname "$0")/functions.sh"
. "$(dirname "$0")/vm/vm.sh"
requires_guest

start_server
start_agent

qemu_command private "memory-backend-ram,id=mem0,size=${RAM_MIB}M"
spawn private "${qemu[@]}"
wait_for "its QMP socket" test -S "$scratch/private.qmp"
fails faultline vm save --qmp="$scratch/private.qmp" --volume=private
expect_match "private RAM" "mem0, is private to QEMU .*-object memory-backend-file,id=mem0,size=${RAM_MIB}M,share=on" "$message"
stop private KILL
fails faultline vm save --qmp="$scratch/none.qmp" --volume=vm
expect_match "no QEMU" "cannot reach QEMU at .*none.qmp .*-qmp unix:PATH,server=on,wait=off" "$message"

devices=(-device virtio-rng-pci)
qemu_command source "memory-backend-file,id=mem0,size=${RAM_MIB}M,share=on,mem-path=$shm/source.mem"
spawn source "${qemu[@]}"
wait_for "its QMP socket" test -S "$scratch/source.qmp"
fails "$BIN/faultline" --server=127.0.0.1:1 vm save --qmp="$scratch/source.qmp" --volume=vm
expect_match "no page server" "127.0.0.1:1" "$message"
wait_for "the guest's first pass" passes_reach source 1
faultline vm save --qmp="$scratch/source.qmp" --volume=vm --quit
wait_for_exit source
expect "the end of the source" 0 "$exit_status"

# refused NAME REGEX BACKEND FLAGS...: of `vm restore`; the last flags go to QEMU.
refused() {
  local name=$1 regex=$2 backend=$3
  shift 3
  qemu_command "$name" "$backend"
  fails timeout "$PATIENCE" "$BIN/faultline" --server="$server_address" vm restore \
    --volume="${volume:-vm}" --socket="${socket:-$agent_socket}" -- "${wrapper[@]}" "${qemu[@]}" "$@"
  expect_match "$name" "$regex" "$message"
  wait_for "attachments to have ended" attached_is length 0
  [[ ! -s $scratch/$name.console ]] || fail "$name has run"
  if pgrep -f "$scratch/$name.qmp" >/dev/null; then fail "a QEMU of $name is left"; fi
}
wrapper=()
refused size "RAM of 192MiB, the started one 128MiB; start QEMU with -m 192" \
  memory-backend-ram,id=mem0,size=128M -m 128
refused backend "backend mem0, the started one other; .*memory-backend=mem0" \
  "memory-backend-ram,id=other,size=${RAM_MIB}M" -machine pc,memory-backend=other
refused processors "start QEMU with -smp 1" "$(private_ram)" -smp 2
refused machine "type pc-i440fx-[0-9.]+, the started one pc-q35-[0-9.]+; start QEMU with -machine pc-i440fx" \
  "$(private_ram)" -machine q35
devices=()
refused device "QEMU ended with status 1 while loading the device state" "$(private_ram)"
devices=(-device virtio-rng-pci)
refused option "QEMU ended with status 1 while starting" "$(private_ram)" -no-such-option
refused incoming 'make it "defer"' "$(private_ram)" -incoming tcp:127.0.0.1:1
head -c 1M /dev/urandom >"$shm/old.mem"
truncate -s "${RAM_MIB}M" "$shm/old.mem"
refused old "RAM of QEMU is not empty, 256 pages" \
  "memory-backend-file,id=mem0,size=${RAM_MIB}M,share=on,mem-path=$shm/old.mem"
socket=$scratch/none.sock refused agent "cannot reach an agent at .*none.sock" "$(private_ram)"
volume=none refused volume "no saved machine none .* faultline vm save --volume=none" \
  "$(private_ram)"
wrapper=(env -i "PATH=$PATH")
refused wrapper "the RAM was not handed over: .* may neither clear the environment" "$(private_ram)"
