#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# While the server's disk is full, changes fail and say so, what was acknowledged stays, and what
# frees space works. Once there is room again, changes work again, without a restart.
. "$(dirname "$0")/functions.sh"
make_tmpfs "$scratch/disk" 192M

store=rocksdb:$scratch/disk/store
start_server --store-memory=16MiB
random_image "$scratch/image" 151 8
faultline volume import vm "$scratch/image"
faultline volume import other "$scratch/image"
cp --sparse=never "$scratch/image" "$scratch/expected"

# Everything that is left, to the last block.
dd if=/dev/zero of="$scratch/disk/filler" bs=64K status=none 2>/dev/null || true

is_full="$scratch/disk/store.* is full; free some space there or delete volumes"
fails faultline volume import third "$scratch/image"
expect "exit status of an import" 1 "$exit_status"
expect_match "the message of an import" "$scratch/disk/store.* is full" "$message"

# Small changes: each is acknowledged, and then durable, or refused. The log may have blocks left
# that it took before.
taken=0
for ((i = 0; i < 50; ++i)); do
  if message=$(faultline volume trim vm --offset=$((i * 3 * PAGE)) --length=4KiB 2>&1); then
    dd if=/dev/zero of="$scratch/expected" bs=$PAGE seek=$((i * 3)) count=1 conv=notrunc status=none
    taken=$((taken + 1))
  else
    expect_match "the message of a change" "$is_full" "$message"
  fi
done
echo "$taken of 50 small changes were taken"

faultline volume export vm "$scratch/export1"
cmp "$scratch/expected" "$scratch/export1" || fail "what was acknowledged has changed"
faultline volume delete other
rm "$scratch/disk/filler"
takes_changes() { faultline volume import after "$scratch/image" >/dev/null 2>&1; }
wait_for "an import to be taken again" takes_changes
faultline volume export after - | cmp - "$scratch/image" || fail "the import after it is wrong"
faultline volume trim vm --offset=0 --length=64KiB
dd if=/dev/zero of="$scratch/expected" bs=64K count=1 conv=notrunc status=none

stop server KILL
start_server --store-memory=16MiB
faultline volume export vm "$scratch/export2"
cmp "$scratch/expected" "$scratch/export2" || fail "what was acknowledged was lost"
faultline volume import later "$scratch/image"
faultline volume export later - | cmp - "$scratch/image" || fail "the later import is wrong"
for volume in other third; do fails faultline volume stat $volume; done
