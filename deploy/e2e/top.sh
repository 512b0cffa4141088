#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# faultline top: once where there is no terminal, as text and as JSON; on a terminal until q, as wide
# as that is at the moment; the terminal is left as it was. An agent that goes away and comes back is
# waited for.
. "$(dirname "$0")/functions.sh"
requires_userfaultfd
requires_command jq
requires_command script

readonly PAGES=2048
readonly HALF=$((PAGES / 2))
image=$scratch/image
random_image "$image" 93 $((PAGES * PAGE >> 20))
start_server
faultline volume import vm "$image"
start_agent
start_toucher target --volume=vm --reference="$image"
expect_out target '^mapped attachment=1 '
top() { "$BIN/faultline" top --socket="$agent_socket" "$@"; }

echo "once"
top --interval=2s --json >"$scratch/top.json" &
looking=$!
sleep 0.5
tell target "check 0 $HALF"
wait "$looking"
expect_out target "^check $(all_right $HALF)$"
faults=$(attached '.[0].faults_total')
expect "faults" "$faults" "$(jq '.[0].faults_total' "$scratch/top.json")"
# In two seconds and a little more.
expect "faults in a second" true \
  "$(jq --argjson all "$faults" '.[0].faults_per_second | . > $all / 4 and . <= $all / 2' "$scratch/top.json")"
expect "what --output=json says" "$faults" \
  "$(top --once --interval=100ms --output=json | jq '.[0].faults_total')"
expect_match "the line of text" " vm +8.0MiB ##########\.\.\.\.\.\.\.\.\.\. +0 +0B" "$(top --interval=100ms)"
fails top --interval=1ms
expect "exit status" 2 "$exit_status"
fails "$BIN/faultline" top --once --socket="$scratch/none"
expect_match "the message" 'cannot reach an agent at .*/none' "$message"

echo "on a terminal"
mkfifo "$scratch/keys"
exec {keys}<>"$scratch/keys"
# start_top: on a terminal of its own of 20 lines of 100 columns; what it has shown is in top.out.
start_top() {
  rm -f "$scratch/top.out" "$scratch/settings"
  stdin=$scratch/keys spawn top script -qefc \
    "stty rows 20 cols 100; stty -g >$scratch/settings
     tty >$scratch/tty; '$BIN/faultline' top --interval=100ms --socket=$agent_socket
     echo \"ended with \$?\"; stty -g | diff - $scratch/settings && echo 'as it was'" /dev/null
}
start_top
expect_out top ' vm +8.0MiB '
expect_out top '1 attachments, 0 pages waited for'
# Wider than there is room for: cut.
if says top.out ' STATE'; then fail "more than 100 columns are used"; fi
stty -F "$(cat "$scratch/tty")" rows 20 cols 160
expect_out top ' STATE'
stop agent KILL
expect_out top 'cannot reach an agent at '
lines=$(count_lines top.out ' attachments, ')
start_agent
comes_back() { (($(count_lines top.out ' attachments, ') > lines)); }
wait_for "the agent to be shown again" comes_back
printf q >&"$keys"
wait_for_exit top
expect "exit status" 0 "$exit_status"
expect_out top 'ended with 0'
expect_out top 'as it was'
expect_match "the end" $'\e\\[\\?25h\e\\[\\?1049l' "$(cat "$scratch/top.out")"

echo "a signal"
start_top
expect_out top ' attachments, '
kill -TERM "$(pgrep -P "$(pgrep -P "${pid[top]}")" -x faultline)"
wait_for_exit top
expect_out top 'as it was'
