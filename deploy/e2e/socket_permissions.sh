#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Of those who may connect to the agent, each has the volumes that the agent's rules name, by user and
# by group; who is refused learns nothing of the volume, and the refusal is logged and counted.
. "$(dirname "$0")/functions.sh"
requires_root "becoming another user"
requires_command jq
requires_command curl

random_image "$scratch/image" 112 1
start_server
for volume in open own-1 closed; do faultline volume import "$volume" "$scratch/image"; done
chmod 711 "$scratch"
install -m 755 "$BIN/toucher" "$(ldd "$BIN/toucher" | awk '/libfaultline/ { print $3 }')" "$scratch"

# as_user ID VOLUME: what a target of that user, of the group 60001 and beside that 60002, says. What
# it keeps of root is that it may have a userfaultfd.
as_user() {
  setpriv --reuid="$1" --regid=60001 --groups=60002 --inh-caps=-all,+sys_ptrace \
    --ambient-caps=+sys_ptrace env LD_LIBRARY_PATH="$scratch" \
    "$scratch/toucher" --socket="$agent_socket" --volume="$2" --reference="$scratch/image" <<<"check 0 8" 2>&1 || true
}

start_agent --socket-owner=0:60002 --socket-mode=0660 --metrics=127.0.0.1:0 --allow=group:60002=open \
  --allow=user:60003='own-*,open' --allow=user:root=open
expect "the socket's owner and mode" "0 60002 660" "$(stat -c '%u %g %a' "$agent_socket")"
fails setpriv --reuid=60003 --regid=60001 --clear-groups env LD_LIBRARY_PATH="$scratch" \
  "$scratch/toucher" --socket="$agent_socket" --volume=open
expect_match "who is not of the socket's group" 'Permission denied' "$message"

for user_and_volume in "60003 open" "60003 own-1" "60004 open"; do
  read -r user volume <<<"$user_and_volume"
  expect_match "what user $user gets of $volume" 'check pages=8 right=8 ' "$(as_user "$user" "$volume")"
done
refused=0
for user_and_volume in "60003 closed" "60003 own" "60003 nowhere" "60004 own-1" "0 closed" "0 own-1"; do
  read -r user volume <<<"$user_and_volume"
  expect_match "what user $user is told of $volume" \
    "user $user may not have volume \"$volume\" here" "$(as_user "$user" "$volume")"
  expect_log agent "user $user may not have volume .*$volume"
  expect "refusals" $((++refused)) "$(metric agent faultline_agent_handovers_refused_total)"
done
fails "$BIN/faultline-agent" --server="$server_address" --socket="$scratch/x" --allow=user:nobody
expect_match "a rule of another form" 'rule "user:nobody": write user:WHO=VOLUME' "$message"
