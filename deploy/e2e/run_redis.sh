#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# An unmodified redis-server in a quarter of the memory that it needs: it saves its data from a
# forked child while it is written to, and every value is what it was set to, also after a restart
# from what it has saved.
. "$(dirname "$0")/functions.sh"
requires_userfaultfd
requires_command redis-check-rdb
requires_command redis-cli

readonly VALUES=16000
# Debian's redis-server, without the service that its package starts: one program under two names.
ln -s "$(command -v redis-check-rdb)" "$scratch/redis-server"
socket=$scratch/redis.sock
redis() { redis-cli -s "$socket" "$@"; }
# set_values GENERATION
set_values() {
  local i
  for ((i = 0; i < VALUES; ++i)); do printf 'SET key:%d %d.%d:%01990d\n' "$i" "$1" "$i" 0; done |
    redis >"$scratch/replies"
  expect "values that were set" "$VALUES" "$(grep -c '^OK$' "$scratch/replies")"
}
# check_values GENERATION
check_values() {
  local i
  for ((i = 0; i < VALUES; ++i)); do printf 'GET key:%d\n' "$i"; done | redis >"$scratch/values"
  for ((i = 0; i < VALUES; ++i)); do printf '%d.%d:%01990d\n' "$1" "$i" 0; done |
    cmp - "$scratch/values" || fail "a value is not what it was set to"
}
redis_answers() { [[ $(redis ping 2>/dev/null) == PONG ]]; }
start_redis() {
  spawn redis "$BIN/faultline" --server="$server_address" run --local-memory=12MiB --verbose \
    --stats="$scratch/redis.stats" -- "$scratch/redis-server" --port 0 --unixsocket "$socket" \
    --dir "$scratch" --save '' --daemonize no
  wait_for "redis to answer" redis_answers
}
saved() { [[ $(redis info persistence) =~ rdb_bgsave_in_progress:0 ]]; }

start_server
start_redis
set_values 1
redis bgsave >/dev/null
set_values 2  # while it is saved
wait_for "the snapshot" saved
expect_match "how it was saved" 'rdb_last_bgsave_status:ok' "$(redis info persistence)"
check_values 2
redis bgsave >/dev/null
wait_for "the second snapshot" saved
check_values 2
redis shutdown nosave || true
wait_for_exit redis
expect "the exit status" 0 "$exit_status"
jq -e '[.attachments[].evicted_pages_total] | max > 8000' "$scratch/redis.stats" >/dev/null ||
  fail "it was hardly evicted: $(cat "$scratch/redis.stats")"
redis-check-rdb "$scratch/dump.rdb" >"$scratch/rdb.log" || fail "the second snapshot is damaged"

start_redis  # reads what the second one has saved
check_values 2
redis shutdown nosave || true
wait_for_exit redis
