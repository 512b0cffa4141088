#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A program that may not have a userfaultfd is told every way to get one; one that may not connect
# to the agent is told so. An unprivileged user's program may have one for its own accesses.
. "$(dirname "$0")/functions.sh"
requires_root "becoming another user"
requires_command jq

image=$scratch/image
random_image "$image" 111 1
start_server
faultline volume import vm "$image"

# As in a container whose seccomp profile and devices leave it out.
start_agent
fails "$BIN/toucher" --socket="$agent_socket" --volume=vm --deny-userfaultfd
expect "exit status without a userfaultfd" 2 "$exit_status"
for way in CAP_SYS_PTRACE /dev/userfaultfd vm.unprivileged_userfaultfd=1 seccomp; do
  expect_match "the message" "^error -1 .*$way" "$message"
done
wait_for "no attachment" attached_is length 0

# Where another user can reach them.
chmod 711 "$scratch"
chmod 644 "$image"
install -m 755 "$BIN/toucher" "$(ldd "$BIN/toucher" | awk '/libfaultline/ { print $3 }')" "$scratch"
as_nobody() {
  LD_LIBRARY_PATH=$scratch setpriv --reuid=nobody --regid=nogroup --clear-groups \
    --bounding-set=-all --inh-caps=-all "$@"
}
fails as_nobody "$scratch/toucher" --socket="$agent_socket" --volume=vm
expect "exit status without permission for the socket" 2 "$exit_status"
expect_match "the message" "^error -13 cannot connect to the agent at $agent_socket: Permission" \
  "$message"
stop agent TERM

start_agent --socket-mode=0666
expect_match "what an unprivileged target reads" "check $(all_right 256)" \
  "$(as_nobody timeout $PATIENCE "$scratch/toucher" --socket="$agent_socket" --volume=vm \
    --reference="$image" --threads=2 <<<check)"
