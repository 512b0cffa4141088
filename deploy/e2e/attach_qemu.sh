#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# An unmodified QEMU that waits for a migration has its RAM attached: file, memfd or anonymous, in
# its sandbox, as root or not. It answers afterwards, and its RAM is the volume.
. "$(dirname "$0")/functions.sh"
requires_root "attaching the processes of other users"
requires_command jq
requires_command qemu-system-x86_64

mib=32
image=$scratch/image
random_image "$image" 141 $mib
memory_file=/dev/shm/${scratch##*/}
node=/dev/${scratch##*/}
outside=("$memory_file" "$node")
start_server
faultline volume import ram "$image"
start_agent

chmod 711 "$scratch"
install -d -m 777 "$scratch/dump"
if [[ -e /dev/userfaultfd ]]; then
  mknod -m 600 "$node" c $((0x$(stat -c %t /dev/userfaultfd))) $((0x$(stat -c %T /dev/userfaultfd)))
  chown 65534:65534 "$node"
fi

qmp() { echo "$1" >&"$to_qemu"; }

# start_qemu BACKEND COMMAND...
start_qemu() {
  local backend=$1
  shift
  rm -f "$scratch/qemu.in" "$scratch/qemu.out"
  mkfifo "$scratch/qemu.in"
  exec {to_qemu}<>"$scratch/qemu.in"
  stdin=$scratch/qemu.in spawn qemu "$@" qemu-system-x86_64 -accel tcg \
    -machine pc,memory-backend=mem0 -m $mib -nodefaults -display none -qmp stdio \
    -object "$backend,id=mem0,size=${mib}M" -incoming defer \
    -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
  expect_out qemu QMP
  qmp '{"execute":"qmp_capabilities"}'
  qmp '{"execute":"query-status","id":"before"}'
  expect_out qemu '"inmigrate".*"id": "before"|"id": "before".*"inmigrate"'
}

# What the machine has, by its own reading: all but the memory of video and ROMs, below 1 MiB.
expect_ram_is_the_image() {
  local low=$((640 << 10)) high=$((1 << 20))
  qmp '{"execute":"query-status","id":"after"}'
  expect_out qemu '"id": "after"'
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
  for case in "memory-backend-ram --anonymous=${mib}MiB" \
    "memory-backend-memfd,share=on --match=/memfd:memory-backend-memfd" \
    "memory-backend-file,share=on,mem-path=$memory_file --match=$memory_file"; do
    read -r backend choice <<<"$case"
    # shellcheck disable=SC2086
    start_qemu "$backend" $user
    "$BIN/faultline" attach --pid="${pid[qemu]}" --socket="$agent_socket" --volume=ram "$choice" \
      --device="$node" --shared-discard=zero
    expect_ram_is_the_image
    rm -f "$memory_file"
  done
done

# RAM that QEMU has filled with zeros itself is not the volume's any more.
start_qemu memory-backend-ram,prealloc=on
fails "$BIN/faultline" attach --pid="${pid[qemu]}" --socket="$agent_socket" --volume=ram \
  --anonymous=${mib}MiB
expect_match "of preallocated RAM" "${mib}MiB of that memory .* without prealloc=on" "$message"
qmp '{"execute":"query-status","id":"refused"}'
expect_out qemu '"id": "refused"'
