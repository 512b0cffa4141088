#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# QEMU runs as a user who may neither have a userfaultfd nor reach the agent, in its sandbox: it is
# saved, restored and moved as any other. It does not outlive the command that it was started by.
. "$(dirname "$0")/functions.sh"
. "$(dirname "$0")/vm/vm.sh"
requires_guest
[[ $(cat /proc/sys/vm/unprivileged_userfaultfd) == 0 && -e /dev/userfaultfd ]] ||
  skip "here any user may have a userfaultfd, or nobody by /dev/userfaultfd"
if "${UNPRIVILEGED[@]}" test -w /dev/userfaultfd; then skip "any user may use /dev/userfaultfd"; fi

# What that user needs: the guest, the library, and where to make its files.
chmod 1777 "$scratch"
cp --remove-destination "$(realpath "$scratch/guest/vmlinuz")" "$scratch/guest/vmlinuz"
programs=$scratch/bin
install -d "$programs"
cp "$BIN"/{faultline,faultline-agent,faultline-server,libfaultline-vm-preload.so} "$programs"
devices=("${SANDBOX[@]}")

start_server
start_agent --socket-mode=0600
at_source=("${UNPRIVILEGED[@]}")
start_source source
at_source=()
expect "the user of the source" 65534 "$(stat -c %u "/proc/${pid[source]}")"
faultline vm save --qmp="$scratch/source.qmp" --volume=vm --continue
saved_pass=$(passes_of source)

wrapper=("${UNPRIVILEGED[@]}")
restore restored --drain
expect_event restored resumed
qemu_pid=$(event restored resumed pid)
expect "the user of a restored QEMU" 65534 "$(stat -c %u "/proc/$qemu_pid")"
expect_event restored complete
wait_for "passes of restored" passes_reach restored $((saved_pass + 2))
expect_no_bad restored
stop restored KILL
wait_for "its QEMU to be gone" test ! -e "/proc/$qemu_pid"

offer source
accept moved
expect_event moved complete
wait_for_exit offer
expect "the end of the offer" 0 "$exit_status"
expect "the user of a moved QEMU" 65534 "$(stat -c %u "/proc/$(event moved running pid)")"
expect_goes_on moved "$(ticks_of source)" "$(passes_of source)"
