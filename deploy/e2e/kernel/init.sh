#!/busybox/busybox sh
# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=dash
#
# The first process of run-in-vm's virtual machine: makes the usual file systems, runs /vm/command
# and switches the machine off. The serial ports: ttyS0 is the kernel's console, ttyS1 and ttyS2 are
# the command's stdout and stderr, ttyS3 gets its exit status.
export PATH=/bin:/busybox HOME=/root TERM=dumb TMPDIR=/var/tmp LC_ALL=C
/busybox/busybox mkdir -p /proc /sys /dev /tmp /var/tmp /run /root
/busybox/busybox mount -t proc proc /proc
/busybox/busybox --install -s /busybox
ln -s /busybox/sh /bin/sh
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
echo "faultline: started" >/dev/kmsg
mkdir -p /dev/shm /dev/pts
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
# Mounted over nothing that a program was built below: its libraries may lie there.
mkdir -p /scratch
mount -t tmpfs tmpfs /scratch
mount -o bind /scratch /var/tmp
ln -s /proc/self/fd /dev/fd
ip link set lo up

# Bytes come out as they were written. Held open, so that the ports keep this.
exec 3>/dev/ttyS1 4>/dev/ttyS2
for port in 1 2 3; do stty -F /dev/ttyS$port raw clocal -echo; done

# Who waits for what inside the kernel, on the console: the watchdog of a command that hangs.
read -r seconds_to_dump </vm/seconds_to_dump
{
  sleep "$seconds_to_dump"
  echo "faultline: still running after $seconds_to_dump s; the processes and the blocked threads:"
  ps -o pid,ppid,stat,args
  echo w
} 2>&1 </dev/null | while read -r line; do
  case $line in
    w) echo w >/proc/sysrq-trigger ;;
    *) echo "$line" >/dev/kmsg ;;
  esac
done &

cd /root || exit
sh /vm/command </dev/null >&3 2>&4 3>&- 4>&-
status=$?
# A port that is closed has sent everything before.
exec 3>&- 4>&-
echo "$status" >/dev/ttyS3
poweroff -f
