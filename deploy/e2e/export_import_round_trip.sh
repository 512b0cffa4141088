#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# What is imported comes out again, byte for byte, with every codec, for files with holes and files
# that are no whole number of pages; and a hole stays a hole.
. "$(dirname "$0")/functions.sh"

start_server
random_image "$scratch/random" 171 5
truncate -s $((3 << 20)) "$scratch/sparse"
random_bytes 172 100000 >>"$scratch/sparse"
truncate -s $((200 << 20)) "$scratch/sparse"
random_bytes 173 4097 >>"$scratch/sparse"
{ yes "compressible" || true; } | head -c 3000001 >"$scratch/text"
printf x >"$scratch/one-byte"
truncate -s $((16 << 20)) "$scratch/hole"

for name in random sparse text one-byte hole; do
  for codec in raw lz4 zstd; do
    faultline volume import "$name-$codec" "$scratch/$name" --codec=$codec >/dev/null
    rm -f "$scratch/out"
    faultline volume export "$name-$codec" "$scratch/out" >/dev/null
    cmp "$scratch/$name" "$scratch/out" || fail "$name with $codec is not what it was"
    expect "the length of $name" "$(stat -c %s "$scratch/$name")" "$(stat -c %s "$scratch/out")"
  done
done
faultline volume export sparse-zstd "$scratch/sparse.export"
(($(du -k "$scratch/sparse.export" | cut -f 1) < 1024)) || fail "the holes were written"
expect "the digest of a streamed export" "$(sha256sum <"$scratch/text")" \
  "$(faultline volume export text-lz4 - | sha256sum)"

fails faultline volume export random-raw "$scratch/text"
expect_match "the message of an export onto a file" "$scratch/text.*--force" "$message"
fails faultline volume import random-raw "$scratch/text"
expect_match "the message of an import into a volume that holds pages" 'already holds pages' "$message"
faultline volume import random-raw "$scratch/text" --replace
slice "$scratch/text" 0 3000001 >"$scratch/replaced"
truncate -s $((5 << 20)) "$scratch/replaced"
faultline volume export random-raw - | cmp - "$scratch/replaced" || fail "the replaced volume is wrong"
for bad in "$scratch" /dev/null "$scratch/absent"; do
  fails faultline volume import bad "$bad"
  expect_match "the message for $bad" "$bad" "$message"
done
