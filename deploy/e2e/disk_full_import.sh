#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# An import that does not fit onto the server's disk fails, says which disk is full, and leaves
# nothing behind: what fits goes in afterwards, and what was there is as it was.
. "$(dirname "$0")/functions.sh"
make_tmpfs "$scratch/disk" 192M

store=rocksdb:$scratch/disk/store
start_server --store-memory=16MiB
random_image "$scratch/small" 141 8
random_image "$scratch/large" 142 256
faultline volume import small "$scratch/small"
free_before=$(df --output=avail -k "$scratch/disk" | tail -n 1)

for attempt in 1 2; do
  fails faultline volume import large "$scratch/large"
  expect "exit status of import $attempt" 1 "$exit_status"
  expect_match "the message of import $attempt" "$scratch/disk/store.* is full" "$message"
  is_alive server || fail "the server has ended"
done
fails faultline volume stat large
expect_match "the message" 'no volume or snapshot "large"' "$message"
space_is_free() {
  (($(df --output=avail -k "$scratch/disk" | tail -n 1) > free_before - 1024))
}
wait_for "the space of the failed imports to be free" space_is_free

faultline volume import second "$scratch/small"
for volume in small second; do
  faultline volume export $volume "$scratch/$volume.export"
  cmp "$scratch/small" "$scratch/$volume.export" || fail "volume $volume is not what was imported"
done
stop server TERM
expect "exit status of the server" 0 "$exit_status"
