#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# What agent and server export is what deploy/prometheus/README.md lists, is clean by promtool, and
# is true: faults, bytes and latencies of a target, a server that is killed, and faults that wait for
# it. What has ended is gone, and the agent's totals stay.
. "$(dirname "$0")/functions.sh"
requires_userfaultfd
requires_command jq
requires_command curl
requires_command promtool

readonly PAGES=2048
readonly HALF=$((PAGES / 2))
readonly DOCS=$E2E_DIR/../prometheus/README.md
image=$scratch/image
random_image "$image" 91 $((PAGES * PAGE >> 20))
start_server --metrics=127.0.0.1:0
faultline volume import vm "$image"
start_agent --metrics=127.0.0.1:0 --metrics-series=1
expect_log server ' metrics at http://127\.0\.0\.1:'
expect_log agent ' metrics at http://127\.0\.0\.1:'

# "NAME KIND" of each row of the tables.
documented() {
  local both='{agent,attachment}'
  sed -nE 's/^\| `([a-z_{},]+)` \| ([a-z]+) \|.*/\1 \2/p' "$DOCS" | while IFS= read -r row; do
    case $row in
      *"$both"*) printf '%s\n' "${row/"$both"/agent}" "${row/"$both"/attachment}" ;;
      *) echo "$row" ;;
    esac
  done | sort
}
exported() {
  { scrape agent && scrape server; } | sed -nE 's/^# TYPE ([a-z_]+) ([a-z]+)$/\1 \2/p' | sort -u
}
diff <(documented) <(exported) >"$scratch/difference" ||
  fail "documented (<) and exported (>) differ: $(cat "$scratch/difference")"
for program in agent server; do
  scrape "$program" >"$scratch/$program.metrics"
  promtool check metrics <"$scratch/$program.metrics" >"$scratch/lint" 2>&1 || true
  expect "what promtool says of the $program" "" "$(cat "$scratch/lint")"
done

echo "a target that faults"
own='volume="vm",attachment="1"'
start_toucher target --volume=vm --reference="$image" --threads=2 --on-agent-loss=wait
expect_out target '^mapped attachment=1 '
expect "faults before the first" 0 "$(metric agent faultline_agent_faults_total)"
expect "the server, seen from the agent" 1 "$(metric agent faultline_agent_server_up)"
tell target "check 0 $HALF"
expect_out target "^check $(all_right $HALF)$"
bytes=$((HALF * PAGE))
wait_for "all pages to be accounted for" metric_is agent \
  "faultline_attachment_filled_bytes_total{$own,content=\"page\"}" $bytes
faults=$(attached '.[0].faults_total')
((faults >= HALF)) || fail "$HALF pages in $faults faults"
for scope in "agent_NAME" "attachment_NAME{$own}"; do
  expect "faults" "$faults" "$(metric agent "faultline_${scope/NAME/faults_total}")"
  expect "fetched bytes" $bytes "$(metric agent "faultline_${scope/NAME/fetched_bytes_total}")"
  expect "resident bytes" $bytes "$(metric agent "faultline_${scope/NAME/resident_bytes}")"
  expect "tracked bytes" $((PAGES * PAGE)) "$(metric agent "faultline_${scope/NAME/tracked_bytes}")"
  expect "faults that wait" 0 "$(metric agent "faultline_${scope/NAME/waiting_faults}")"
done
# Each fault that was filled is in one class, and its latency between nothing and forever.
joined=$(metric agent faultline_agent_joined_faults_total)
expect "latencies" $((faults - joined)) \
  "$(metric agent 'faultline_agent_fault_latency_seconds_count{class="demand"}')"
expect "buckets end with all" $((faults - joined)) \
  "$(metric agent 'faultline_agent_fault_latency_seconds_bucket{class="demand",le="+Inf"}')"
expect "faults of 2 us" 0 \
  "$(metric agent 'faultline_agent_fault_latency_seconds_bucket{class="demand",le="2.048e-06"}')"
metric_exceeds agent 'faultline_agent_fault_latency_seconds_sum{class="demand"}' 0.001 ||
  fail "$HALF faults took less than a millisecond together"
for stage in map resolve answer fill wire server store; do
  metric_exceeds agent "faultline_agent_fault_stage_seconds_count{stage=\"$stage\"}" 0 ||
    fail "no fault has gone through stage $stage"
done
# The server's view of the same.
expect "bytes of the volume" $bytes "$(metric server 'faultline_volume_fetched_bytes_total{volume="vm"}')"
expect "bytes of the server" $bytes "$(metric server faultline_server_fetched_bytes_total)"
expect "size" $((PAGES * PAGE)) "$(metric server 'faultline_volume_size_bytes{volume="vm"}')"
metric_exceeds server 'faultline_server_store_latency_seconds_count{kind="read"}' 0 ||
  fail "the store was not read"
metric_exceeds server faultline_server_store_bytes $((PAGES * PAGE)) || fail "the store is empty"
metric_exceeds server faultline_server_store_free_bytes 0 || fail "no free space is told"

echo "more attachments than series"
touch_with --volume=vm --reference="$image" <<<"check 0 8" >"$scratch/second.out"
start_toucher other --volume=vm --reference="$image"
expect_out other '^mapped attachment=3 '
tell other 'check 0 8'
expect_out other "^check $(all_right 8)$"
wait_for "the third to be one of the others" metric_is agent \
  'faultline_attachment_faults_total{volume="other",attachment="other"}' 8
expect "series of its own" "" "$(metric agent 'faultline_attachment_faults_total{volume="vm",attachment="3"}')"
expect "faults of all three" $((faults + 16)) "$(metric agent faultline_agent_faults_total)"
expect "attachments that have begun" 3 "$(metric agent faultline_agent_attachments_total)"

echo "a server that is killed"
check_is_done() { (($(grep -c "^check $(all_right $HALF)$" "$scratch/target.out") == $1)); }
stop server KILL
wait_for "the agent to notice" metric_is agent faultline_agent_server_up 0
tell target "check $HALF $HALF"
wait_for "two threads to wait" metric_is agent "faultline_attachment_waiting_faults{$own}" 2
wait_for "an old fault" metric_exceeds agent "faultline_attachment_oldest_fault_seconds{$own}" 1
age=$(metric agent faultline_agent_oldest_fault_seconds)
wait_for "it to grow older" metric_exceeds agent faultline_agent_oldest_fault_seconds "$age + 0.5"
metric_exceeds agent "faultline_attachment_fetch_retries_total{$own}" 0 || fail "nothing was tried again"
start_server --metrics=127.0.0.1:0
wait_for "the rest of the pages" check_is_done 2
wait_for "the agent to have a server" metric_is agent faultline_agent_server_up 1
wait_for "no fault to wait" metric_is agent faultline_agent_oldest_fault_seconds 0

echo "what has ended"
total=$(metric agent faultline_agent_filled_bytes_total\{content=\"page\"\})
for name in target other; do
  tell "$name" unmap
  wait_for_exit "$name"
done
wait_for "both to be gone" metric_is agent faultline_agent_attachments 0
expect "its series" "" "$(metric agent "faultline_attachment_faults_total{$own}")"
expect "the others" 8 \
  "$(metric agent 'faultline_attachment_faults_total{volume="other",attachment="other"}')"
expect "the total" "$total" "$(metric agent faultline_agent_filled_bytes_total\{content=\"page\"\})"
expect "resident bytes" 0 "$(metric agent faultline_agent_resident_bytes)"
stop agent TERM
expect "exit status of the agent" 0 "$exit_status"

echo "addresses that others reach"
fails "$BIN/faultline-agent" --server="$server_address" --socket="$agent_socket" --metrics=0.0.0.0:0
expect_match "the refusal" 'metrics=0.0.0.0:0: other hosts may reach .* --metrics-beyond-loopback' "$message"
fails "$BIN/faultline-server" --listen=127.0.0.1:0 --store=memory: --metrics='[::]:0'
expect_match "the refusal" 'metrics=\[::\]:0: other hosts may reach .* --metrics-beyond-loopback' "$message"
