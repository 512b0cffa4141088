#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# An unmodified QEMU that waits for a migration has its RAM paged from its first mmap on, by the
# preloaded library: file, memfd or anonymous, in its sandbox, as root or not. Its RAM is the
# volume. Where it cannot be, QEMU does not start, and says why.
. "$(dirname "$0")/functions.sh"
requires_root "running QEMU as another user"
requires_command jq
requires_command qemu-system-x86_64

mib=32
image=$scratch/image
random_image "$image" 142 $mib
memory_file=/dev/shm/${scratch##*/}
node=/dev/${scratch##*/}
outside=("$memory_file" "$node")
start_server
faultline volume import ram "$image"
start_agent

# What a QEMU that is not root needs: the library, the socket, and a node for a userfaultfd.
chmod 711 "$scratch"
chmod 666 "$agent_socket"
library=$scratch/libfaultline-preload.so
install -m 755 "$BIN/libfaultline-preload.so" "$library"
install -d -m 777 "$scratch/dump"
if [[ -e /dev/userfaultfd ]]; then
  mknod -m 600 "$node" c $((0x$(stat -c %t /dev/userfaultfd))) $((0x$(stat -c %T /dev/userfaultfd)))
  chown 65534:65534 "$node"
fi

qmp() { echo "$1" >&"$to_qemu"; }

# qemu_with BACKEND CHOICE COMMAND...: starts it with CHOICE in its environment.
qemu_with() {
  local backend=$1 choice=$2
  shift 2
  rm -f "$scratch/qemu.in" "$scratch/qemu.out" "$scratch/qemu.log"
  mkfifo "$scratch/qemu.in"
  exec {to_qemu}<>"$scratch/qemu.in"
  stdin=$scratch/qemu.in spawn qemu "$@" env LD_PRELOAD="$library" \
    FAULTLINE_PRELOAD_SOCKET="$agent_socket" FAULTLINE_PRELOAD_VOLUME=ram \
    FAULTLINE_PRELOAD_DEVICE="$node" FAULTLINE_PRELOAD_"$choice" \
    qemu-system-x86_64 -accel tcg -machine pc,memory-backend=mem0 -m $mib -nodefaults \
    -display none -qmp stdio -object "$backend,id=mem0,size=${mib}M" -incoming defer \
    -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
}

# What the machine has, by its own reading: all but the memory of video and ROMs, below 1 MiB.
expect_ram_is_the_image() {
  local low=$((640 << 10)) high=$((1 << 20))
  expect_out qemu QMP
  qmp '{"execute":"qmp_capabilities"}'
  qmp "{\"execute\":\"pmemsave\",\"arguments\":{\"val\":0,\"size\":$((mib << 20)),\"filename\":\"$scratch/dump/ram\"},\"id\":\"dump\"}"
  expect_out qemu '"return": \{\}, "id": "dump"|"id": "dump", "return": \{\}'
  cmp -n $low "$scratch/dump/ram" "$image" || fail "low memory is not the volume's"
  cmp -i $high "$scratch/dump/ram" "$image" || fail "high memory is not the volume's"
  rm -f "$scratch/dump/ram"
  qmp '{"execute":"quit"}'
  wait_for_exit qemu
  expect "exit status of QEMU" 0 "$exit_status"
}

unprivileged="setpriv --reuid=65534 --regid=65534 --clear-groups --bounding-set=-all --inh-caps=-all"
for user in "" "$unprivileged"; do
  [[ -z $user || -e $node ]] || continue
  for case in "memory-backend-ram ANONYMOUS=${mib}MiB" \
    "memory-backend-memfd,share=on MEMFD=${mib}MiB" \
    "memory-backend-file,share=on,mem-path=$memory_file PATH=$memory_file"; do
    read -r backend choice <<<"$case"
    # shellcheck disable=SC2086
    qemu_with "$backend" "$choice" $user
    expect_ram_is_the_image
    rm -f "$memory_file"
  done
done

# RAM that has something in it is not the volume's.
truncate -s ${mib}M "$memory_file"
printf x | dd of="$memory_file" conv=notrunc status=none
qemu_with "memory-backend-file,share=on,mem-path=$memory_file" "PATH=$memory_file"
wait_for_exit qemu
expect "exit status of a QEMU that is refused" 1 "$exit_status"
expect_match "of a file that is not empty" "has content already" "$(<"$scratch/qemu.log")"
rm -f "$memory_file"

# Without an agent there is no memory.
stop agent TERM
qemu_with memory-backend-ram "ANONYMOUS=${mib}MiB"
wait_for_exit qemu
expect "exit status without an agent" 1 "$exit_status"
expect_match "of an agent that is away" "start faultline-agent with --socket=" "$(<"$scratch/qemu.log")"
