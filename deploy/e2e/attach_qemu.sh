#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# An unmodified QEMU that waits for a migration has its RAM attached: file, memfd or anonymous, in
# its sandbox, as root or not. It answers afterwards, and its RAM is the volume.
. "$(dirname "$0")/functions.sh"
. "$(dirname "$0")/vm/bare_qemu.sh"
requires_root "attaching the processes of other users"
requires_command jq
requires_command qemu-system-x86_64
make_ram 141

# await_qemu ID: it waits for its migration; qmp_capabilities may be asked for once more.
await_qemu() {
  expect_out qemu QMP
  qmp '{"execute":"qmp_capabilities"}'
  qmp "{\"execute\":\"query-status\",\"id\":\"$1\"}"
  expect_out qemu "\"inmigrate\".*\"id\": \"$1\"|\"id\": \"$1\".*\"inmigrate\""
}

for user in root nobody; do
  [[ $user == root || -e $node ]] || continue
  as=()
  [[ $user == root ]] || as=("${UNPRIVILEGED[@]}")
  for case in "memory-backend-ram --anonymous=${MIB}MiB" \
    "memory-backend-memfd,share=on --match=/memfd:memory-backend-memfd" \
    "memory-backend-file,share=on,mem-path=$memory_file --match=$memory_file"; do
    read -r backend choice <<<"$case"
    start_qemu "$backend" "${as[@]}"
    await_qemu before
    "$BIN/faultline" attach --pid="${pid[qemu]}" --socket="$agent_socket" --volume=ram "$choice" \
      --device="$node" --shared-discard=zero
    expect_ram_is_the_image
    rm -f "$memory_file"
  done
done

# RAM that QEMU has filled with zeros itself is not the volume's any more.
start_qemu memory-backend-ram,prealloc=on
await_qemu before
fails "$BIN/faultline" attach --pid="${pid[qemu]}" --socket="$agent_socket" --volume=ram \
  --anonymous=${MIB}MiB
expect_match "of preallocated RAM" "${MIB}MiB of that memory .* without prealloc=on" "$message"
qmp '{"execute":"query-status","id":"refused"}'
expect_out qemu '"id": "refused"'
