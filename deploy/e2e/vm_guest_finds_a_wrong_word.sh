#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The guest of these tests notices one bit that is not what it was, and so does their check: without
# that, its silence would prove nothing.
. "$(dirname "$0")/functions.sh"
. "$(dirname "$0")/vm/vm.sh"
requires_guest

spoil_pass=2
start_source source
wait_for "the wrong word" says source.console '^BAD page [0-9]+ pass 2 word 7'
if (expect_no_bad source) 2>"$scratch/check.out"; then fail "the tests' check does not see it"; fi
wait_for "the next pass" passes_reach source 4
expect "pages that were found" 1 "$(grep -c '^BAD' "$scratch/source.console")"
