#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The two ways of the operator's guide to back up a store, and to bring it back after a disaster:
# volumes one by one, while they are written to; and the whole store, while the server stands still.
. "$(dirname "$0")/functions.sh"
requires_command jq

random_image "$scratch/image" 61 16
random_image "$scratch/other" 62 16
start_server
faultline volume import disk "$scratch/image" --durability=interval
faultline volume snapshot disk before
faultline volume clone before work
faultline volume import work "$scratch/other" --replace

# --- one by one: of one moment, although the volume is changed meanwhile --------------------------

faultline volume snapshot work work.backup
faultline volume import work "$scratch/image" --replace
mkdir "$scratch/backup"
faultline volume export work.backup "$scratch/backup/work.img"
faultline volume delete work.backup
cmp "$scratch/backup/work.img" "$scratch/other" || fail "the backup is not of its moment"

# --- the whole store: drained, copied, and on again -----------------------------------------------

listed() { faultline --output=json volume list | jq -c '[.[] | del(.fetched_pages_total, .open_writers)]'; }
before=$(listed)
stop server TERM
expect "exit status of the server" 0 "$exit_status"
expect_log server 'drained; everything is durable'
cp -a "$scratch/store" "$scratch/backup/store"
start_server
expect "volumes after the backup" "$before" "$(listed)"

# --- the disaster: the disk is gone, and a server is made anew at the same address -----------------

faultline volume delete work
stop server KILL
rm -rf "$scratch/store"
cp -a "$scratch/backup/store" "$scratch/store"
start_server
expect "volumes after the restore" "$before" "$(listed)"
for pair in disk:image before:image work:image; do
  faultline volume export "${pair%:*}" "$scratch/restored" --force
  cmp "$scratch/restored" "$scratch/${pair#*:}" || fail "volume ${pair%:*} is not what it was"
done
faultline volume import work "$scratch/backup/work.img" --replace
faultline volume export work "$scratch/restored" --force
cmp "$scratch/restored" "$scratch/other" || fail "the volume that was restored alone is not right"
