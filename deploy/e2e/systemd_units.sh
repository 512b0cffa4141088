#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The units of the Debian packages under systemd itself, hardening and all: the server is active once
# it serves, the agent starts with the first process that hands memory over, killed ones are back by
# themselves while the process goes on, and what stops stops in order. In a virtual machine with
# Linux 6.12, whose only other software is systemd and Busybox.
. "$(dirname "$0")/functions.sh"
. "$E2E_DIR/kernel/vm.sh"
for command in dpkg-deb nsenter setpriv systemctl systemd-sysusers udevadm unshare; do
  requires_command $command
done
requires_vm 6.12
readonly ROOT=$scratch/root

make_packages
for package in faultline-server faultline-agent libfaultline0; do
  dpkg-deb -x "$scratch/packages/${package}"_*.deb "$ROOT"
done
systemd-sysusers --root="$ROOT" faultline-server.conf faultline-agent.conf 2>"$scratch/users.log"
# Who hands memory over.
gid=$(awk -F: '$1 == "faultline" { print $3 }' "$ROOT/etc/group")
echo "tenant:x:5000:$gid::/:/bin/sh" >>"$ROOT/etc/passwd"
random_image "$scratch/image" 75 4

files=(--file "$scratch/image" --file "$BIN/toucher" --file "$E2E_DIR/kernel/under-systemd")
for command in nsenter setpriv systemctl udevadm unshare; do
  files+=(--file "$(command -v $command)")
done
files+=(--file "/lib/systemd/systemd:/lib/systemd/systemd")
while read -r path; do
  files+=(--file "$ROOT$path:$path")
done < <(cd "$ROOT" && find etc usr/bin usr/lib -type f -printf '/%p\n' | grep -vE '\.so(\.|$)')
library=$(find "$ROOT/usr/lib" -name 'libfaultline.so.0*' -type f)
files+=(--file "$library:/usr/lib/libfaultline.so.0")

bare_vm 6.12 --memory 2G --timeout 330 "${files[@]}" -- under-systemd
cat "$scratch/vm.out"
expect "the status of under-systemd in the virtual machine" 0 "$exit_status"
