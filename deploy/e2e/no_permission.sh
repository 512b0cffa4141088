#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A program that may not have a userfaultfd is told every way to get one; one that may not connect
# to the agent is told so.
. "$(dirname "$0")/functions.sh"
requires_root "becoming another user"
requires_command jq
[[ $(cat /proc/sys/vm/unprivileged_userfaultfd) == 0 ]] ||
  skip "every user may have a userfaultfd here (vm.unprivileged_userfaultfd)"
[[ ! -e /dev/userfaultfd || $(stat -c %a /dev/userfaultfd) == ?00 ]] ||
  skip "other users may open /dev/userfaultfd here"

random_image "$scratch/image" 111 1
start_server
faultline volume import vm "$scratch/image"

# Where another user can reach them.
chmod 711 "$scratch"
install -m 755 "$BIN/toucher" "$(ldd "$BIN/toucher" | awk '/libfaultline/ { print $3 }')" "$scratch"
as_nobody() {
  LD_LIBRARY_PATH=$scratch setpriv --reuid=nobody --regid=nogroup --clear-groups \
    --bounding-set=-all --inh-caps=-all "$@"
}
start_agent
fails as_nobody "$scratch/toucher" --socket="$agent_socket" --volume=vm
expect "exit status without permission for the socket" 2 "$exit_status"
expect_match "the message" "^error -13 cannot connect to the agent at $agent_socket: Permission" \
  "$message"
stop agent TERM

start_agent --socket-mode=0666
fails as_nobody "$scratch/toucher" --socket="$agent_socket" --volume=vm
expect "exit status without a userfaultfd" 2 "$exit_status"
for way in CAP_SYS_PTRACE /dev/userfaultfd vm.unprivileged_userfaultfd=1 seccomp; do
  expect_match "the message" "^error -1 .*$way" "$message"
done
wait_for "no attachment" attached_is length 0
