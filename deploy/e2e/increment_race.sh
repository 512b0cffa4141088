#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# No write to far memory is lost while its pages are taken out and come back: of neither kind, with
# no policy, and not where the page server is killed and started again all the time, or the agent is,
# or the server's disk is full for a while. In the environment, to run longer, or a part only:
#
#   FAULTLINE_RACE_SECONDS    of each race; 5
#   FAULTLINE_RACE_KINDS      "memfd anonymous": by libfaultline, and under `faultline run`
#   FAULTLINE_RACE_POLICIES   "fifo second-chance s3-fifo"
#   FAULTLINE_RACE_TROUBLES   "none server-killed agent-killed disk-full"; in each but the first
#                             there is one policy, s3-fifo, unless FAULTLINE_RACE_POLICIES is set
#   FAULTLINE_RACE_PAUSE      seconds from one trouble to the next; 1
. "$(dirname "$0")/functions.sh"
requires_userfaultfd
requires_root "a small file system for the page server"
requires_command jq

readonly SECONDS_EACH=${FAULTLINE_RACE_SECONDS:-5} PAUSE=${FAULTLINE_RACE_PAUSE:-1}
readonly PAGES=4096 LOCAL_PAGES=1024

# start_race KIND POLICY: the program, as race, and its agent.
start_race() {
  local race=("$BIN/increment_race" "$SECONDS_EACH" "$PAGES")
  if [[ $1 == memfd ]]; then
    start_agent
    spawn race "${race[@]}" "$agent_socket" "race.$((++races))" "$LOCAL_PAGES" "$2"
  else
    spawn race "$BIN/faultline" --server="$server_address" run --verbose \
      --local-memory="$((LOCAL_PAGES * PAGE / 1024))KiB" --policy="$2" -- "${race[@]}"
  fi
}
races=0

start_store() { start_server --store-memory=32MiB; }
kill_server() {
  kill -KILL "${pid[server]}"
  wait_for_exit server
  sleep 0.3
  start_store
}
kill_agent() {
  if [[ $1 == memfd ]]; then
    kill -KILL "${pid[agent]}"
    wait_for_exit agent
    start_agent
  else
    local agent
    agent=$(pgrep -P "${pid[race]}" -x faultline-agent) || return 0
    kill -KILL "$agent" 2>/dev/null || true
  fi
}
fill_disk() {
  dd if=/dev/zero of="$scratch/disk/filler" bs=64K status=none 2>/dev/null || true
  sleep "$PAUSE"
  rm "$scratch/disk/filler"
}

# race KIND POLICY TROUBLE
race() {
  local troubles=0 looks=0 counts
  rm -f "$scratch"/{race,agent}.{out,log}
  start_race "$1" "$2"
  until has_exited race; do
    ((looks++ * PAUSE < 3 * SECONDS_EACH + PATIENCE)) || fail "a race of $1 memory by $2 with $3 does not end"
    sleep "$PAUSE"
    case $3 in
      none) continue ;;
      server-killed) kill_server ;;
      agent-killed) kill_agent "$1" ;;
      disk-full) fill_disk ;;
      *) fail "unknown trouble $3" ;;
    esac
    troubles=$((troubles + 1))
  done
  wait_for_exit race
  counts=$(grep '^rounds=' "$scratch/race.out") || fail "it has ended with $exit_status"
  echo "$1 $2 $3 x$troubles: $counts"
  expect "the exit status" 0 "$exit_status"
  expect_match "its verdict" 'lost=0 wrong=0' "$counts"
  # With a disk that is full half of the time, on a machine that does other things, it is not many.
  [[ $counts =~ returned=([0-9]+) ]] && ((BASH_REMATCH[1] > PAGES / 4)) || fail "hardly a page has left"
  [[ $3 == none ]] || ((troubles > 1)) || fail "it has ended before there was any trouble"
  if [[ $1 == memfd ]]; then stop agent TERM; fi
}

make_tmpfs "$scratch/disk" 1G
store=rocksdb:$scratch/disk/store
start_store
for trouble in ${FAULTLINE_RACE_TROUBLES:-none server-killed agent-killed disk-full}; do
  policies="fifo second-chance s3-fifo"
  if [[ $trouble != none ]]; then policies=s3-fifo; fi
  for kind in ${FAULTLINE_RACE_KINDS:-memfd anonymous}; do
    for policy in ${FAULTLINE_RACE_POLICIES:-$policies}; do
      race "$kind" "$policy" "$trouble"
    done
  done
done
