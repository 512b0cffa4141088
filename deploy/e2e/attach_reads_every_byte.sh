#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A target reads every byte of its volume, whatever its memory is and however many threads touch the
# same page, and what it writes stays.
. "$(dirname "$0")/functions.sh"
requires_userfaultfd
requires_command jq

# 64 MiB: random bytes, a hole, zeros that are written, compressible text, and random bytes again.
image=$scratch/image
random_image "$image" 1 32
truncate -s 48M "$image"
head -c 4M /dev/zero >>"$image"
{ yes "a line of text that compresses well" || true; } | head -c 4M >>"$image"
random_bytes 2 8M >>"$image"
pages=$(($(stat -c %s "$image") / PAGE))

start_server
faultline volume import vm "$image"
start_agent --volume=vm

for memory in anon memfd; do
  for order in check race; do
    answers=$(touch_with --volume=vm --reference="$image" --memory=$memory --threads=4 <<END
$order
write 5 1
write 9000 600
check
unmap
END
    )
    echo "$memory $order: $answers"
    touched=$pages
    [[ $order == race ]] && touched=$((4 * pages))
    mapfile -t lines <<<"$answers"
    expect_match "the mapping" "^mapped attachment=[0-9]+ pages=$pages$" "${lines[0]}"
    expect "the first touch" "$order $(all_right $touched)" "${lines[1]}"
    expect "writing one page" "write pages=1 sigbus=0" "${lines[2]}"
    expect "writing many" "write pages=600 sigbus=0" "${lines[3]}"
    expect "what was written and the rest" "check $(all_right "$pages")" "${lines[4]}"
    expect "the end" unmapped "${lines[5]}"
  done
done

# A write may be the first touch of a page, and a part of a volume may be mapped.
slice "$image" $((3 * PAGE)) $((100 * PAGE)) >"$scratch/part"
answers=$(touch_with --volume=vm --reference="$scratch/part" --offset=$((3 * PAGE)) \
  --length=$((100 * PAGE)) <<<$'write 7 3\ncheck')
expect_match "a part of a volume" "write pages=3 sigbus=0.check $(all_right 100)" "$answers"

wait_for "all attachments to have ended" attached_is length 0
expect_log agent 'attachment 1 \(pid [0-9]+, volume vm\): began, 1 mappings, '"$pages"' pages'
expect_log agent "attachment 1 .*: ended, .* $pages pages filled, 0 poisoned"
expect_no_log agent 'warning|error'
expect_no_log server 'warning|error'
