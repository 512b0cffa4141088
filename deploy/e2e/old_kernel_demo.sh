#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# On Debian 12's own Linux 6.1, where userfaultfd has neither fills under the VMA's lock alone nor
# UFFDIO_POISON, a file that went into the page server comes back byte by byte through page faults.
. "$(dirname "$0")/functions.sh"
. "$E2E_DIR/kernel/vm.sh"
requires_vm 6.1

# Not a whole number of pages.
random_bytes 61 1500001 >"$scratch/input"
digest=$(sha256sum "$scratch/input" | cut -d' ' -f1)
in_vm 6.1 --timeout 150 --file "$scratch/input" -- \
  sh -ec 'uname -r; for memory in private memfd; do faultline demo --input input --memory=$memory; done'
cat "$scratch/vm.out"
expect "the status of the demo in the virtual machine" 0 "$exit_status"
expect_match "the kernel" '^6\.1\.' "$(head -n 1 "$scratch/vm.out")"
expect "demos whose digests are the file's" 2 "$(grep -cE "through faults +$digest" "$scratch/vm.out")"
expect "demos with one fault a page" 2 "$(grep -cE '^faults +367 ' "$scratch/vm.out")"
