#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# With the server's disk full to the last block, targets read every byte, and so they do after the
# server was killed and started on the full disk.
. "$(dirname "$0")/functions.sh"
requires_userfaultfd
requires_command jq
make_tmpfs "$scratch/disk" 192M

store=rocksdb:$scratch/disk/store
image=$scratch/image
random_image "$image" 161 16
pages=$((16 * 256))
start_server --store-memory=16MiB
faultline volume import vm "$image"
start_agent --volume=vm
start_toucher target --volume=vm --reference="$image" --threads=2
expect_out target '^mapped'
tell target "check 0 $((pages / 2))"
expect_out target "^check $(all_right $((pages / 2)))$"

fill() {
  dd if=/dev/zero bs=64K oflag=append conv=notrunc of="$scratch/disk/filler" status=none \
    2>/dev/null || true
}
fill
tell target check
expect_out target "^check $(all_right $pages)$"
tell target unmap
wait_for_exit target

stop server KILL
fill
start_server --store-memory=16MiB
expect_match "what a target reads after a restart" "check $(all_right $pages)" \
  "$(touch_with --volume=vm --reference="$image" --threads=2 <<<check)"
is_alive server || fail "the server has ended"
