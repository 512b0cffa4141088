#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The pages of agent and server in a browser: what they show of a running churn and of memory that
# rests is what the metrics say, the map adds up and goes down to single pages, and events come by
# themselves. Nothing else can be had there, nor by other sites.
. "$(dirname "$0")/functions.sh"
requires_userfaultfd
for program in chromium chromedriver curl jq; do requires_command "$program"; done

readonly PAGES=2048
readonly HALF=$((PAGES / 2))
readonly BROWSER=(--headless --no-sandbox --disable-gpu --disable-quic --no-first-run
  --disable-background-networking --disable-component-update --disable-sync
  --window-size=1280,1150 "--user-data-dir=$scratch/browser")

# --- a browser, by the protocol of WebDriver -----------------------------------------------------

# driver PATH [BODY [METHOD]]: the value that is answered.
driver() {
  curl -sS --max-time 20 ${2:+-H 'Content-Type: application/json' -d "$2"} ${3:+-X "$3"} \
    "$driver$1" | jq -c .value
}
start_browser() {
  spawn chromedriver chromedriver --port=0
  expect_out chromedriver 'started successfully on port [0-9]+'
  driver=http://127.0.0.1:$(sed -nE 's/.*successfully on port ([0-9]+).*/\1/p' "$scratch/chromedriver.out")
  local session
  session=$(driver /session "$(jq -n --arg binary "$(command -v chromium)" '{capabilities:
    {alwaysMatch: {"goog:chromeOptions": {binary: $binary, args: $ARGS.positional}}}}' \
    --args -- "${BROWSER[@]}")" | jq -r '.sessionId // empty')
  [[ -n $session ]] || fail "chromium does not start: $(tail -n 3 "$scratch/chromedriver.log")"
  driver+=/session/$session
  trap close_browser EXIT
}
# A browser outlives a driver that is killed.
close_browser() {
  local status=$?
  set +e
  driver '' '' DELETE >/dev/null 2>&1
  (exit "$status")
  cleanup
}
open_page() { driver /url "$(jq -n --arg url "$1" '{url: $url}')" >/dev/null; }
# js EXPRESSION: its value in the page, texts without quotes.
js() {
  driver /execute/sync "$(jq -n --arg script "return ($1)" '{script: $script, args: []}')" | jq -r .
}
# shown ID: the text of an element; of a number, without its commas.
shown() { js "(document.getElementById('$1') || {}).textContent"; }
number() { shown "$1" | tr -d ,; }
number_is() { [[ $(number "$1") == "$2" ]]; }
number_reaches() { (($(number "$1" | grep -E '^[0-9]+$' || echo 0) >= $2)); }
shows() { [[ $(shown "$1") =~ $2 ]]; }
js_is() { [[ $(js "$1") == "$2" ]]; }
click() { js "document.getElementById('$1').click()" >/dev/null; }

# page_of NAME: the address of a program's page.
page_of() { sed -nE 's/.* page at (http[^,]*),.*/\1/p' "$scratch/$1.log" | tail -n 1; }

start_browser

# --- a churn -------------------------------------------------------------------------------------

echo "a churn"
mkdir "$scratch/churn"
FAULTLINE_AGENT_METRICS=127.0.0.1:0 spawn churn "$BIN/faultline" --output=json churn --seconds=3600 \
  --threads=2 --directory="$scratch/churn"
agent_log() { cat "$scratch"/churn/*/agent.log 2>/dev/null; }
churn_serves() { agent_log | grep -q ' page at '; }
wait_for "the agent of the churn" churn_serves
# So that scrape() finds it.
agent_log >"$scratch/churned.log"
url=$(page_of churned)
open_page "$url"
wait_for "a connection" shows server-state '^connected$'
wait_for "faults" number_reaches n-faults_total 1000
chosen_series() {
  local id
  id=$(js "String(chosen)")
  scrape churned | grep -E "^faultline_attachment_$1\{volume=\"[^\"]*\",attachment=\"$id\"${2:-}\}" |
    awk '{print $NF}'
}
# between WHAT ELEMENT FAMILY: what the page shows lies between two looks at the metrics. Not while
# the churn ends one attachment and begins the next: to be tried again.
between() {
  local low page high
  is_alive churn || fail "the churn has ended by itself: $(cat "$scratch/churn.out" "$scratch/churn.log")"
  low=$(chosen_series "$3") && [[ -n $low ]] || return 1
  sleep 1  # the page takes a moment
  page=$(number "$2") && high=$(chosen_series "$3") && [[ -n $high ]] || return 1
  ((page >= low && page <= high)) || return 1
  echo "$1: $low <= $page <= $high"
}
wait_for "the page and the metrics to agree about faults" between faults n-faults_total faults_total
some='[1-9][0-9,]*'
wait_for "events of each kind" shows event-counts \
  "^$some fork .* $some remap .* $some remove .* $some unmap$"
wait_for "events in the list" js_is "document.querySelectorAll('#events tr').length > 20" true
later_events() {
  local first
  first=$(js "Number(document.querySelector('#events tr').dataset.sequence)") && [[ -n $first ]] || return 1
  sleep 1
  js_is "Number(document.querySelector('#events tr').dataset.sequence) > $first" true
}
wait_for "later ones" later_events
# The cells are all of the pages, whatever happens to these.
cells_are_all() {
  js_is "map.cells.length > 0 && map.cells.filter((c, i) => c.reduce((a, b) => a + b) !==
    Math.min(map.cell_pages, map.count - i * map.cell_pages)).length" 0
}
wait_for "cells that have the pages that they should" cells_are_all
stop churn TERM  # what it finds is another test's
wait_for "word of its end" shows trouble 'does not answer'

# --- memory that rests ---------------------------------------------------------------------------

echo "memory that rests"
image=$scratch/image
random_image "$image" 92 $((PAGES * PAGE >> 20))
start_server --metrics=127.0.0.1:0
faultline volume import vm "$image"
start_agent --metrics=127.0.0.1:0
url=$(page_of agent)
open_page "$url"
wait_for "an empty page" shows more '^Nothing is attached'
start_toucher target --volume=vm --reference="$image"
expect_out target '^mapped attachment=1 '
tell target "check 0 $HALF"
expect_out target "^check $(all_right $HALF)$"
series='{volume="vm",attachment="1"'
wait_for "resident pages" number_is m-resident $HALF
expect "absent pages" $HALF "$(number m-absent)"
expect "bytes that are resident" $((HALF * PAGE)) "$(metric agent "faultline_attachment_resident_bytes$series}")"
expect "faults" "$(metric agent "faultline_attachment_faults_total$series}")" \
  "$(number n-faults_total)"
expect "pages that were filled" "$(metric agent "faultline_attachment_filled_bytes_total$series,content=\"page\"}")" \
  $(($(number n-copied_pages_total) * PAGE))
expect "faults in the histogram" \
  "$(metric agent "faultline_attachment_fault_latency_seconds_count$series,class=\"demand\"}")" \
  "$(js "before.get(1).fault_latency.demand.reduce((a, b) => a + b)")"
expect "server" "$server_address" "$(shown server-address)"

echo "down to single pages"
click in
wait_for "half of it" js_is "map.count < $PAGES" true
zoom_to_pages() { shows view ', one a cell$' || ! click in; }
wait_for "single pages" zoom_to_pages
# One that is resident, and one that is not.
js "show($HALF - 8, 16)" >/dev/null
wait_for "the border" js_is "map.first === $HALF - 8 && map.count === 16" true
expect "states" "rrrrrrrraaaaaaaa" \
  "$(js "map.cells.map((c) => STATES[c.findIndex((n) => n === 1)][0]).join('')")"
expect "what is said of a page" "page 1,024, of the volume from page 1,024: absent" \
  "$(js 'describe(8)')"
click whole

echo "what may be asked for"
code() { curl -s -o "$scratch/answer" -w '%{http_code}' --max-time 10 "$@"; }
expect "no such page" 404 "$(code "${url}etc/passwd")"
expect "no such attachment" 404 "$(code "${url}api/attachments/99/map")"
expect_match "its reason" '^\{"error":"there is no attachment 99"\}' "$(cat "$scratch/answer")"
for query in 'first=-1' 'first=x' 'count=0' 'cells=0' 'cells=5000' 'cells=99999999999999999999'; do
  expect "map?$query" 400 "$(code "${url}api/attachments/1/map?$query")"
done
expect "events?after=now" 400 "$(code "${url}api/attachments/1/events?after=now")"
expect "a page beyond the end" 0 "$(curl -sS "${url}api/attachments/1/map?first=5000" | jq .count)"
expect "a change" 405 "$(code -X POST -d x "${url}api/agent")"
expect "by another name" 403 "$(code -H 'Host: rebound.example' "${url}api/agent")"
expect "by a name of this host" 200 "$(code -H 'Host: localhost:1' "${url}api/agent")"
expect "parts" 200 "$(code -H 'Range: bytes=0-1,0-1,0-1' "${url}")"
curl -sS -D "$scratch/headers" -o /dev/null "$url"
expect_match "what the page may do" "Content-Security-Policy: default-src 'none'; script-src 'self'" \
  "$(cat "$scratch/headers")"
# Where memory is, is nobody else's business.
start=$(while IFS='- ' read -r from to _; do
  ((16#$to - 16#$from == PAGES * PAGE)) && echo "$from" && break
done <"/proc/${pid[target]}/maps")
[[ -n $start ]] || fail "the target's memory is not in its maps"
curl -sS "${url}api/agent" "${url}api/attachments/1/map" "${url}api/attachments/1/events" >"$scratch/told"
for form in "$start" "$((16#$start))" "$((16#$start / PAGE))"; do
  if grep -qi "$form" "$scratch/told"; then fail "the address 0x$start is told, as $form"; fi
done

echo "the page of the server"
fetched=$(metric server faultline_server_fetched_bytes_total)
open_page "$(page_of server)"
wait_for "what was fetched" number_is n-pages_fetched_total $((fetched / PAGE))
expect "what was fetched of the volume" "vm" \
  "$(js "[...document.querySelectorAll('#volumes tr')].map((row) => row.cells[0].textContent).join()")"
expect_match "the store" '^rocksdb:' "$(shown store-text)"
expect "fetches in the histogram" \
  "$(metric server 'faultline_server_request_latency_seconds_count{kind="fetch"}')" \
  "$(js "last.latency.fetch.reduce((a, b) => a + b)")"
expect "a change" 405 "$(code -X DELETE "$(page_of server)api/server")"

echo "a server that is killed"
open_page "$url"
wait_for "the agent's page again" shows server-state '^connected$'
stop server KILL
wait_for "the page to say so" shows server-state '^not connected$'
