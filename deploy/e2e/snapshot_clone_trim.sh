#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A snapshot keeps its content whatever becomes of its volume, clones start with it and go their own
# way, and what is trimmed reads as zero: by export, and in a target's memory.
. "$(dirname "$0")/functions.sh"
requires_userfaultfd
requires_command jq

start_server
random_image "$scratch/first" 181 4
random_image "$scratch/second" 182 4
faultline volume import vm "$scratch/first"
faultline volume snapshot vm monday
faultline volume clone monday copy
faultline volume trim copy --offset=1MiB --length=512KiB
faultline volume trim vm --offset=0 --length=8KiB
cp "$scratch/first" "$scratch/copy"
dd if=/dev/zero of="$scratch/copy" bs=512K seek=2 count=1 conv=notrunc status=none
cp "$scratch/first" "$scratch/vm"
dd if=/dev/zero of="$scratch/vm" bs=8K count=1 conv=notrunc status=none
faultline volume snapshot copy tuesday
faultline volume clone tuesday grandchild
cp "$scratch/copy" "$scratch/tuesday"
cp "$scratch/copy" "$scratch/grandchild"
cp "$scratch/first" "$scratch/monday"

# check_all WHEN: every volume by export, and as memory.
start_agent
check_all() {
  local volume
  for volume in vm monday copy tuesday grandchild; do
    faultline volume export $volume - | cmp - "$scratch/$volume" || fail "$volume is wrong $1"
    expect_match "$volume as memory $1" "check $(all_right 1024)" \
      "$(touch_with --volume=$volume --reference="$scratch/$volume" --threads=2 <<<check)"
  done
}
check_all "at first"
faultline volume import vm "$scratch/second" --replace
cp "$scratch/second" "$scratch/vm"
check_all "after its volume was replaced"
fails faultline volume trim monday --offset=0 --length=4KiB
expect_match "the message of a change to a snapshot" 'monday' "$message"
stop server KILL
start_server
check_all "after the server was killed"
expect_match "the parent" 'monday' "$(faultline volume stat copy)"
