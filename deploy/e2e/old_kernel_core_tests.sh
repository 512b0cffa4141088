#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The paging core's own tests pass on Debian 12's Linux 6.1 too; so does what it finds out about the
# kernel. What needs UFFDIO_POISON, which is of 6.6, is skipped there.
. "$(dirname "$0")/functions.sh"
. "$E2E_DIR/kernel/vm.sh"
requires_vm 6.1

tests=(uffd_test fault_test client_test)
# This one needs a file that is not in memory, and a virtual machine without a disk has none.
filter=-UffdAdoptTest.MemoryOfAFileIsRefusedWithTheReason
files=()
for test in "${tests[@]}"; do files+=(--file "$BIN/$test"); done
in_vm 6.1 --timeout 150 "${files[@]}" -- \
  sh -c "status=0; for test in ${tests[*]}; do
    \$test --gtest_brief=1 --gtest_filter=$filter || status=1; done; exit \$status"
cat "$scratch/vm.out"
expect "the status of the tests in the virtual machine" 0 "$exit_status"
expect "programs whose tests passed" ${#tests[@]} "$(grep -cE '^\[  PASSED  \]' "$scratch/vm.out")"
