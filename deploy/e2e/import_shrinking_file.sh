#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A file that is cut off, or written to, while it is imported: the import fails and says so, no
# volume is made, and one that is to be replaced stays as it was.
. "$(dirname "$0")/functions.sh"

start_server
random_image "$scratch/before" 131 64
faultline volume import old "$scratch/before"

# import_disturbed VOLUME COMMAND...: runs the command when the import has opened the file and
# cannot go on, since the server stands still. The file is much more than the client reads ahead.
import_disturbed() {
  local volume=$1
  shift
  random_image "$scratch/image" 132 64
  kill -STOP "${pid[server]}"
  spawn import "$BIN/faultline" --server="$server_address" volume import "$volume" \
    "$scratch/image" --replace
  wait_for "the import to open the file" has_opened_image
  "$@"
  kill -CONT "${pid[server]}"
  wait_for_exit import
  expect "exit status of the import" 1 "$exit_status"
}
has_opened_image() { [[ $(readlink /proc/"${pid[import]}"/fd/*) == *"$scratch/image"* ]]; }

import_disturbed new truncate -s $((1 << 20)) "$scratch/image"
expect_log import \
  "$scratch/image was cut off at [0-9]+ of 67108864 bytes while it was read; the volume is as it was"
fails faultline volume stat new
expect_match "the message" 'no volume or snapshot "new"' "$message"

import_disturbed old truncate -s $((1 << 20)) "$scratch/image"
import_disturbed old dd if=/dev/zero of="$scratch/image" bs=1 count=1 conv=notrunc status=none
expect_log import "$scratch/image was written to while it was read"
faultline volume export old "$scratch/after"
cmp "$scratch/before" "$scratch/after" || fail "the volume has changed"
expect "the volumes" 2 "$(faultline volume list | wc -l)"
