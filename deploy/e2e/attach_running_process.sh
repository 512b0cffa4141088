#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A process that runs already, and has no library of ours, is attached and reads every byte of a
# volume, whatever its memory is and whoever it runs as. What cannot be attached is refused with what
# to do about it, and left alone.
. "$(dirname "$0")/functions.sh"
requires_root "attaching the processes of other users"
requires_command jq
[[ $(uname -m) == x86_64 ]] || skip "system calls are injected on x86-64 only"

image=$scratch/image
# Not the size of a thread's stack, of which there are several.
random_image "$image" 131 12
size=$((12 << 20))
memory_file=/dev/shm/${scratch##*/}
node=/dev/${scratch##*/}
outside=("$memory_file" "$node")

start_server
faultline volume import vm "$image"
start_agent

# start_target MEMORY OPTION...: see client/attach/attach_target.cc.
start_target() {
  local memory=$1
  shift
  rm -f "$scratch/target.in" "$scratch/target.out"
  mkfifo "$scratch/target.in"
  exec {to_target}<>"$scratch/target.in"
  stdin=$scratch/target.in spawn target "${as[@]}" "$BIN/attach_target" "$memory" "$@"
  expect_out target '^ready '
}
attach() { "$BIN/faultline" attach --pid="${pid[target]}" --socket="$agent_socket" "$@"; }

# expect_target CONTENT: what the target's memory is, once it is told to read it.
expect_target() {
  echo >&"$to_target"
  wait_for_exit target
  expect "exit status of the target" 0 "$exit_status"
  expect "how the target has waited" unharmed "$(sed -n 2p "$scratch/target.out" | tr -d '\0')"
  tail -c "$size" "$scratch/target.out" | cmp - "$1" || fail "the target has read other bytes"
}

as=()
for case in "anon:$size --anonymous=12MiB" "memfd:$size --match=/memfd:attach-target" \
  "file:$memory_file:$size --match=$memory_file"; do
  read -r memory choice <<<"$case"
  for how in "ppoll --no-drain" "busy --drain" "futex --prefetch=sequential"; do
    read -r wait policy <<<"$how"
    start_target "$memory" "$wait" threads sandbox
    answer=$(attach "$choice" --volume=vm "$policy")
    echo "$memory $wait: $answer"
    expect_match "the answer" "^attached 12MiB of process ${pid[target]} to volume vm" "$answer"
    expect "the target's id" "${pid[target]}" "$(attached '.[-1].pid')"
    expect_target "$image"
    rm -f "$memory_file"
  done
done

# A part of the volume.
start_target anon:$((4 << 20)) nanosleep
attach --anonymous=4MiB --volume=vm --offset=2MiB
slice "$image" $((2 << 20)) $((4 << 20)) >"$scratch/part"
size=$((4 << 20)) expect_target "$scratch/part"

# An unprivileged process, which needs a node of the device that it may open.
if [[ $(cat /proc/sys/vm/unprivileged_userfaultfd) == 0 && -e /dev/userfaultfd ]]; then
  as=(setpriv --reuid=65534 --regid=65534 --clear-groups --bounding-set=-all --inh-caps=-all)
  start_target "memfd:$size" ppoll threads
  fails attach --match=/memfd:attach-target --volume=vm
  expect_match "the message" "may not have a userfaultfd.*mknod PATH c 10" "$message"
  mknod -m 600 "$node" c $((0x$(stat -c %t /dev/userfaultfd))) $((0x$(stat -c %T /dev/userfaultfd)))
  chown 65534:65534 "$node"
  attach --match=/memfd:attach-target --volume=vm --device="$node"
  expect_target "$image"
  as=()
fi

# Refused: each leaves the target with its memory, all zeros.
truncate -s "$size" "$scratch/zeros"
start_target "anon:$size" ppoll
fails attach --anonymous=12MiB --volume=other
expect_match "of a volume that is not there" "other" "$message"
fails attach --anonymous=16MiB --volume=vm
expect_match "of a size that is not there" "no private anonymous mapping of exactly 16MiB" "$message"
faultline volume create larger --size=16MiB
fails attach --anonymous=12MiB --volume=larger
expect_match "of another size" "has 12MiB, but volume larger has 16MiB; .*--offset=0" "$message"
agent_socket=$scratch/none fails attach --anonymous=12MiB --volume=vm
expect_match "without an agent" "start faultline-agent with --socket=$scratch/none" "$message"
fails attach --volume=vm
expect "exit status of wrong usage" 2 "$exit_status"
expect_target "$scratch/zeros"

# The agent's own refusal comes when everything is done, which then is undone.
stop agent TERM
start_agent --max-attachments=1
start_toucher other --volume=vm
expect_out other '^mapped'
start_target "anon:$size" ppoll
fails attach --anonymous=12MiB --volume=vm
expect_match "of an agent that is full" "serves 1 attachments at most" "$message"
find "/proc/${pid[target]}/fd" -lname '*userfaultfd*' | grep -q . && fail "a userfaultfd was left open"
expect_target "$scratch/zeros"
tell other unmap
wait_for_exit other

# Neither may it be attached twice. Without an agent it waits, and reads no zeros.
start_target "anon:$size" ppoll
attach --anonymous=12MiB --volume=vm
fails attach --anonymous=12MiB --volume=vm
expect_match "of an attached process" "is registered with a userfaultfd already" "$message"
wait_for "the others to have ended" attached_is length 1
stop agent KILL
echo >&"$to_target"
expect_out target '^unharmed'
is_alive target || fail "the target has ended without an agent"
expect "bytes of memory that the target has read without an agent" 0 \
  "$(tail -n +3 "$scratch/target.out" | wc -c)"
