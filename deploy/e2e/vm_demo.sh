#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# deploy/demo-vm shows what it promises, and leaves nothing behind.
. "$(dirname "$0")/functions.sh"
. "$(dirname "$0")/vm/vm.sh"
requires_guest

shown=$(TMPDIR=$scratch FAULTLINE_BIN=$BIN timeout 150 "$E2E_DIR/../demo-vm") ||
  fail "it ended with $?: $shown"
echo "$shown"
expect_match "the end" "the count has gone on: ([0-9]+) in the first QEMU, [0-9]+ in the second" "$shown"
for what in running "first output" "all pages"; do
  expect_match "a time" "from the stop to $what +[0-9]+ ms" "$shown"
done
[[ -z $(find "$scratch" -name 'faultline-vm.*') ]] || fail "it has left its files"
