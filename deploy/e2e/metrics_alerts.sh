#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The alert rules are right by promtool, do what their tests say, and fire in a Prometheus that reads
# a real agent whose server is killed while a thread waits.
. "$(dirname "$0")/functions.sh"
requires_userfaultfd
requires_command jq
requires_command curl
requires_command prometheus

readonly RULES=$E2E_DIR/../prometheus/faultline-rules.yml
promtool check rules "$RULES"
(cd "$(dirname "$RULES")" && promtool test rules faultline-rules-test.yml)

image=$scratch/image
random_image "$image" 92 1
start_server --metrics=127.0.0.1:0
faultline volume import vm "$image"
start_agent --metrics=127.0.0.1:0 --fault-deadline=10m
start_toucher target --volume=vm --reference="$image"
expect_out target '^mapped'
metrics_of() { sed -nE 's|.* metrics at http://(.*)/metrics$|\1|p' "$scratch/$1.log" | tail -n 1; }
cat >"$scratch/prometheus.yml" <<END
global: {scrape_interval: 1s, evaluation_interval: 500ms}
rule_files: ['$RULES']
scrape_configs:
  - {job_name: faultline-agent, static_configs: [{targets: ['$(metrics_of agent)']}]}
  - {job_name: faultline-server, static_configs: [{targets: ['$(metrics_of server)']}]}
END
# A port that is free now; it takes none by itself.
port=$(comm -23 <(seq 20000 29999) <(ss -Htan | grep -oE ':[0-9]+ ' | tr -d ': ' | sort -u) | shuf -n 1)
spawn prometheus prometheus --config.file="$scratch/prometheus.yml" \
  --storage.tsdb.path="$scratch/prometheus" --web.listen-address=127.0.0.1:"$port"

# asked EXPRESSION: the value of its first series.
asked() {
  curl -sS --get --data-urlencode "query=$1" "http://127.0.0.1:$port/api/v1/query" 2>/dev/null |
    jq -r '.data.result[0].value[1] // ""' 2>/dev/null || true
}
asked_is() { [[ $(asked "$1") == "$2" ]]; }
alert_is() { [[ $(asked "count(ALERTS{alertname=\"$1\",alertstate=\"$2\"})") == 1 ]]; }
wait_for "both to be scraped" asked_is 'sum(up)' 2
tell target 'check 0 128'
expect_out target "^check $(all_right 128)$"
wait_for "the target's faults" asked_is 'faultline_attachment_fault_latency_seconds_count{class="demand"}' 128
expect "alerts" "" "$(asked ALERTS)"

stop server KILL
tell target check
wait_for "an alert for the fault that waits" alert_is FaultlineFaultWaiting firing
wait_for "an alert for the server" alert_is FaultlineServerUnreachable pending
wait_for "that to last" alert_is FaultlineServerUnreachable firing
start_server
expect_out target "^check $(all_right 256)$"
wait_for "the alerts to end" asked_is 'count(ALERTS) or vector(0)' 0
