#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The guest of these tests notices pages that are not what they were: without that, its silence would
# prove nothing.
. "$(dirname "$0")/functions.sh"
. "$(dirname "$0")/vm/vm.sh"
requires_guest

start_server
start_agent
start_source source
faultline vm save --qmp="$scratch/source.qmp" --volume=vm --quit
wait_for_exit source
# Some of these are its own, which is half of all; few are its kernel's, which is not asked to bear it.
for ((mib = 64; mib < 184; mib += 8)); do
  faultline volume trim vm --offset="${mib}MiB" --length=4KiB >"$scratch/trim.out"
done
qemu_command wrong "$(private_ram)"
spawn wrong "$BIN/faultline" --server="$server_address" vm restore --volume=vm \
  --socket="$agent_socket" -- "${qemu[@]}"
wait_for "a wrong word" says wrong.console '^BAD page [0-9]+ pass [0-9]+ word 0'
echo "$(grep -c '^BAD' "$scratch/wrong.console") wrong pages were found so far"
