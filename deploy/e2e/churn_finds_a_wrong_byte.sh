#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# One byte of the volume is wrong: the churn says so, where, and what it has found instead, and
# fails.
. "$(dirname "$0")/functions.sh"
requires_userfaultfd

for source in server memory; do
  fails "$BIN/faultline" churn --pages=512 --ops=4000 --seconds=0 --seed=24 --wrong-page=77 \
    --operations=read --source=$source --directory="$scratch"
  expect "exit status" 1 "$exit_status"
  expect_match "the report" "WRONG BYTES: 1 of page 13 of slot 2 " "$message"
  expect_match "the report" "the first is byte 1365; seed 24, thread 2" "$message"
  expect_match "the report" "expected: page 77 of the volume" "$message"
  expect_match "the report" \
    "found: +page 77 of the volume \(bytes 0 to 1359\), then bytes of no page \(bytes 1360 to 1367\)" \
    "$message"
  expect_match "the last word" "1 bytes in 1 pages were wrong" "$message"
done
