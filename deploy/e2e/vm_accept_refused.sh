#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A QEMU that cannot take an offered machine is refused with what to change: RAM that is not empty,
# devices of other processes, another size, another type, another state. Each time nothing of it is
# left, and the source goes on.
. "$(dirname "$0")/functions.sh"
. "$(dirname "$0")/vm/vm.sh"
requires_guest
requires_command qemu-storage-daemon

devices=(-device virtio-rng-pci)
start_source source

# refused NAME REGEX BACKEND FLAGS...: of `vm accept`; the last flags go to QEMU.
refused() {
  local name=$1 regex=$2 backend=$3
  shift 3
  offer source
  qemu_command "$name" "$backend"
  fails timeout "$PATIENCE" "$BIN/faultline" vm accept --from="$offered_at" -- "${qemu[@]}" "$@"
  expect_match "$name" "$regex" "$message"
  wait_for_exit offer
  expect "the end of the offer" 1 "$exit_status"
  expect_log offer "the other end says: "
  [[ ! -s $scratch/$name.console ]] || fail "$name has run"
  if pgrep -f "$scratch/$name.qmp" >/dev/null; then fail "a QEMU of $name is left"; fi
  wait_for "ticks of the source" ticks_reach source $(($(ticks_of source) + 5))
}
refused prealloc "RAM of QEMU is not empty, .* prealloc=on" "$(private_ram),prealloc=on"
refused locked "RAM of QEMU is not empty, .* mem-lock=on" "$(private_ram)" -overcommit mem-lock=on
head -c 1M /dev/urandom >"$shm/old.mem"
truncate -s "${RAM_MIB}M" "$shm/old.mem"
shared=memory-backend-file,id=mem0,size=${RAM_MIB}M,share=on,mem-path=$shm
refused old "RAM of QEMU is not empty, 256 pages" "$shared/old.mem"
refused size "RAM of ${RAM_MIB}MiB, the started one 128MiB; start QEMU with -m $RAM_MIB" \
  memory-backend-ram,id=mem0,size=128M -m 128
refused machine "type pc-i440fx-[0-9.]+, the started one pc-q35" "$(private_ram)" -machine q35
devices=()
refused state "QEMU ended with status 1 while loading the device state" "$(private_ram)"
devices=(-device virtio-rng-pci)

# A device in another process, which maps the RAM.
truncate -s 1M "$scratch/disk"
spawn storage qemu-storage-daemon --blockdev "driver=file,node-name=disk,filename=$scratch/disk" \
  --export "type=vhost-user-blk,id=disk,node-name=disk,addr.type=unix,addr.path=$scratch/disk.sock"
wait_for "the device's socket" test -S "$scratch/disk.sock"
refused vhost-user "the device vhost-user-blk-pci has others than QEMU use the RAM" "$shared/new.mem" \
  -chardev "socket,id=disk,path=$scratch/disk.sock" -device vhost-user-blk-pci,chardev=disk

offer source
accept destination
expect_event offer running
expect_goes_on destination "$(ticks_of source)" "$(passes_of source)"
