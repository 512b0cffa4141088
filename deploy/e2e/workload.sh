#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Workloads tell what they have done, in both forms, and end with the status that their help says.
# One whose memory another process changes finds that, and says where.
. "$(dirname "$0")/functions.sh"
requires_command jq

for name in sequential stride pointer-chase zipf gups hash-table sort bfs allocator-churn; do
  "$BIN/faultline" --output=json workload "$name" --size=8MiB --threads=2 >"$scratch/$name.json"
  jq -e --arg name "$name" '.workload == $name and .size_bytes == 8388608 and .operations > 0 and
    .operations_per_second > 0 and .max_rss_bytes > 1000000 and (.checksum | test("^[0-9a-f]{16}$"))' \
    "$scratch/$name.json" >/dev/null || fail "bad figures: $(cat "$scratch/$name.json")"
  expect "lines of $name" 1 "$(wc -l <"$scratch/$name.json")"
done
expect_match "the text" 'checksum +[0-9a-f]{16}, all bytes right' \
  "$("$BIN/faultline-workload" zipf --size=1MiB --pin-cpu)"

# Wrong usage: said before anything is done, by the front and by the program alike.
for program in "$BIN/faultline workload" "$BIN/faultline-workload"; do
  for flags in "bubblesort" "zipf --passes=2" "zipf --size=12parsecs" "sort --write-share=0.1" "gups --threads=65"; do
    fails $program $flags
    expect "the status of $program $flags" 2 "$exit_status"
    [[ -n $message ]] || fail "$program $flags says nothing"
  done
done
fails "$BIN/faultline" workload zipf --size=12parsecs
expect_match "the message" '"12parsecs" is no size: give a number of bytes such as' "$message"

# zeroes_a_page PID: in the middle of its mapping of 64 MiB, which may be merged with a neighbour.
zeroes_a_page() {
  local range permissions offset device inode path begin
  while read -r range permissions offset device inode path; do
    begin=$((16#${range%-*}))
    [[ $permissions == rw-p && $inode == 0 && -z $path ]] || continue
    ((16#${range#*-} - begin >= 64 << 20)) || continue
    dd if=/dev/zero of="/proc/$1/mem" bs=4096 count=1 conv=notrunc status=none \
      oflag=seek_bytes seek=$((begin + (32 << 20)))
    return
  done <"/proc/$1/maps"
}
# It goes on for ever, unless it finds the page.
spawn victim "$BIN/faultline-workload" sequential --size=64MiB --passes=1000000
wait_for "the memory to be filled" \
  bash -c "(( \$(awk '/VmRSS/ { print \$2 }' /proc/${pid[victim]}/status) > 60000 ))"
# While it is filled the page is filled again, so more than once.
until has_exited victim; do
  zeroes_a_page "${pid[victim]}" 2>>"$scratch/dd.log" || true
  sleep 0.2
  ((SECONDS < PATIENCE)) || fail "a page of zeros is not found"
done
wait_for_exit victim
expect "the status of a wrong byte" 1 "$exit_status"
expect_log victim 'wrong content: page [0-9]+ of the memory, its byte [0-9]+ .*: found 0x0+, expected .*; zeros: the page was lost'
