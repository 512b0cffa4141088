#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# An agent whose target has all of its volume resident needs little memory: 64 MiB and two bytes for
# each page at most.
. "$(dirname "$0")/functions.sh"
requires_userfaultfd
requires_command jq

readonly GIB=1
pages=$((GIB << 18))
# Random bytes at the front and at the back, and a hole between.
image=$scratch/image
random_image "$image" 101 8
truncate -s $(((GIB << 30) - (8 << 20))) "$image"
random_bytes 102 8M >>"$image"
start_server
faultline volume import vm "$image"
start_agent --volume=vm

start_toucher target --volume=vm --reference="$image" --threads=4
expect_out target '^mapped'
# Its look at the kernel, when it starts, takes memory for a moment: the peak is taken from here on.
echo 5 >"/proc/${pid[agent]}/clear_refs"
before=$(awk '/^VmRSS:/ { print $2 }' "/proc/${pid[agent]}/status")
tell target check
expect_out target "^check $(all_right $pages)$"
expect "the pages that are resident" $pages "$(attached '.[0].present_pages')"
peak=$(awk '/^VmHWM:/ { print $2 }' "/proc/${pid[agent]}/status")
bound=$((64 * 1024 + 2 * pages / 1024))
echo "agent: $before KiB before, at most $peak KiB with $pages pages resident; allowed $bound KiB"
((peak <= bound)) || fail "the agent needs $peak KiB"
# What it needs for each page shows above what it needs at all: two bytes, and some slack for its
# buffers.
((peak - before <= 2 * pages / 1024 + 4 * 1024)) ||
  fail "the agent has grown from $before KiB to $peak KiB"
tell target unmap
wait_for_exit target
expect "exit status of the target" 0 "$exit_status"
