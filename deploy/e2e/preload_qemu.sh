#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# An unmodified QEMU that waits for a migration has its RAM paged from its first mmap on, by the
# preloaded library: file, memfd or anonymous, in its sandbox, as root or not. Its RAM is the
# volume. Where it cannot be, QEMU does not start, and says why.
. "$(dirname "$0")/functions.sh"
. "$(dirname "$0")/vm/bare_qemu.sh"
requires_root "running QEMU as another user"
requires_command jq
requires_command qemu-system-x86_64
make_ram 142

# What a QEMU that is not root needs besides: the library and the socket.
chmod 666 "$agent_socket"
library=$scratch/libfaultline-preload.so
install -m 755 "$BIN/libfaultline-preload.so" "$library"

# qemu_with BACKEND CHOICE COMMAND...: starts it with CHOICE in its environment.
qemu_with() {
  local backend=$1 choice=$2
  shift 2
  start_qemu "$backend" "$@" env LD_PRELOAD="$library" \
    FAULTLINE_PRELOAD_SOCKET="$agent_socket" FAULTLINE_PRELOAD_VOLUME=ram \
    FAULTLINE_PRELOAD_DEVICE="$node" FAULTLINE_PRELOAD_"$choice"
}

for user in root nobody; do
  [[ $user == root || -e $node ]] || continue
  as=()
  [[ $user == root ]] || as=("${UNPRIVILEGED[@]}")
  for case in "memory-backend-ram ANONYMOUS=${MIB}MiB" \
    "memory-backend-memfd,share=on MEMFD=${MIB}MiB" \
    "memory-backend-file,share=on,mem-path=$memory_file PATH=$memory_file"; do
    read -r backend choice <<<"$case"
    qemu_with "$backend" "$choice" "${as[@]}"
    expect_ram_is_the_image
    rm -f "$memory_file"
  done
done

# RAM that has something in it is not the volume's.
truncate -s ${MIB}M "$memory_file"
printf x | dd of="$memory_file" conv=notrunc status=none
qemu_with "memory-backend-file,share=on,mem-path=$memory_file" "PATH=$memory_file"
wait_for_exit qemu
expect "exit status of a QEMU that is refused" 1 "$exit_status"
expect_match "of a file that is not empty" "has content already" "$(<"$scratch/qemu.log")"
rm -f "$memory_file"

# Without an agent there is no memory.
stop agent TERM
qemu_with memory-backend-ram "ANONYMOUS=${MIB}MiB"
wait_for_exit qemu
expect "exit status without an agent" 1 "$exit_status"
expect_match "of an agent that is away" "start faultline-agent with --socket=" "$(<"$scratch/qemu.log")"
