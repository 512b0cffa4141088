#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The lab measures in a few seconds, with both programs that have it, and leaves what it is asked
# for: tables, CSV files, JSON, plots. What it cannot do it says before it measures.
. "$(dirname "$0")/functions.sh"
requires_userfaultfd
requires_command jq

quick() { timeout --kill-after=1 "$PATIENCE" "$@" --quick 2>>"$scratch/lab.log"; }
# The number of fields in each line of a CSV file, once each.
fields() { awk -F, '{ print NF }' "$1" | sort -u; }

plots=()
if command -v gnuplot >/dev/null; then
  plots=(--plot="$scratch/locks.png")
else
  fails "$BIN/faultline" lab locks --quick --plot="$scratch/locks.png"
  expect_match "the message" "gnuplot, which is not installed.*gnuplot-nox" "$message"
fi
text=$(quick "$BIN/faultline" lab locks --csv="$scratch/locks.csv" "${plots[@]}")
expect_match "the first line" "^machine +.* CPUs, Linux $(uname -r) " "$text"
for operation in COPY ZEROPAGE CONTINUE MOVE POISON WRITEPROTECT; do
  expect_match "a row of each operation" $'\n'"$operation +(per-VMA|mmap_lock) " "$text"
  expect "lines of $operation" 16 "$(grep -c "^$operation," "$scratch/locks.csv")"
done
expect "fields of a line" 1 "$(fields "$scratch/locks.csv" | wc -l)"
expect "fields of a line" 1 "$(fields "$scratch/locks-protocol.csv" | wc -l)"
expect "lines of the second table" 10 "$(wc -l <"$scratch/locks-protocol.csv")"
# Of the monitor that locks across read(): the column of stale pages.
stale=$(awk -F, 'NR == 1 { for (i = 1; i <= NF; ++i) if ($i == "stale_pages_max") at = i }
  $2 == "lock across read" { print $at }' "$scratch/locks-protocol.csv" | xargs)
expect "stale pages with the lock across read()" "0 0 0" "$stale"
if ((${#plots[@]} > 0)); then
  expect "the front of the plot" 89504e470d0a1a0a "$(head -c 8 "$scratch/locks.png" | od -An -tx1 | tr -d ' ')"
  quick "$BIN/faultline-lab" locks --part=protocol --plot="$scratch/protocol.svg" >"$scratch/lab.out"
  expect_match "the plot" '<svg.*Discards that show a stale page' "$(tr '\n' ' ' <"$scratch/protocol.svg")"
fi

# The program that is to run where nothing else is.
quick "$BIN/faultline-lab" locks --part=protocol --output=json >"$scratch/protocol.json"
jq -e '(.locks | length == 0) and (.protocol | length == 9) and ([.protocol[].discards.median > 0] | all)' \
  "$scratch/protocol.json" >/dev/null || fail "bad figures: $(cat "$scratch/protocol.json")"

fails "$BIN/faultline" lab locks --quick --plot="$scratch/locks.gif"
expect_match "the message" 'must end in .png or .svg' "$message"
expect "the status of wrong usage" 2 "$exit_status"
fails "$BIN/faultline" lab locks --quick --part=protocol --csv="$scratch/missing/locks.csv"
expect_match "the message" 'cannot write .*missing/locks-protocol.csv: No such file' "$message"
[[ ! -s $scratch/lab.log ]] || fail "the lab has said: $(cat "$scratch/lab.log")"
