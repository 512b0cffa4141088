# SPDX-License-Identifier: Apache-2.0
#
# For tests of a QEMU that waits for a migration, and whose RAM comes from volume "ram": what it is
# started with, and a look at its RAM. Sourced after functions.sh. Such a machine has no guest.

readonly MIB=32

# make_ram SEED: the volume and the agent that serves it, in $image what it holds; $memory_file is a
# file for the RAM to be, $node a /dev/userfaultfd for a user who may not open that.
make_ram() {
  image=$scratch/image
  random_image "$image" "$1" $MIB
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
}

qmp() { echo "$1" >&"$to_qemu"; }

# start_qemu BACKEND COMMAND...: in its sandbox, by what COMMAND is followed with; speaks QMP.
start_qemu() {
  local backend=$1
  shift
  rm -f "$scratch/qemu.in" "$scratch/qemu.out" "$scratch/qemu.log"
  mkfifo "$scratch/qemu.in"
  exec {to_qemu}<>"$scratch/qemu.in"
  stdin=$scratch/qemu.in spawn qemu "$@" qemu-system-x86_64 -accel tcg \
    -machine pc,memory-backend=mem0 -m $MIB -nodefaults -display none -qmp stdio \
    -object "$backend,id=mem0,size=${MIB}M" -incoming defer \
    "${SANDBOX[@]}"
}

# What the machine has, by its own reading: all but the memory of video and ROMs, below 1 MiB.
expect_ram_is_the_image() {
  local low=$((640 << 10)) high=$((1 << 20))
  expect_out qemu QMP
  qmp '{"execute":"qmp_capabilities"}'
  qmp "{\"execute\":\"pmemsave\",\"arguments\":{\"val\":0,\"size\":$((MIB << 20)),\"filename\":\"$scratch/dump/ram\"},\"id\":\"dump\"}"
  expect_out qemu '"return": \{\}, "id": "dump"|"id": "dump", "return": \{\}'
  cmp -n $low "$scratch/dump/ram" "$image" || fail "low memory is not the volume's"
  cmp -i $high "$scratch/dump/ram" "$image" || fail "high memory is not the volume's"
  rm -f "$scratch/dump/ram"
  qmp '{"execute":"quit"}'
  wait_for_exit qemu
  expect "exit status of QEMU" 0 "$exit_status"
}
