#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The page server of an offer is killed while the other end runs the machine, and is started again;
# then the offer itself, and is resumed: the machine waits, and goes on, and the source quits in the
# end. What the source does not know any more it allows to nobody, and an offer before "run" leaves
# a machine that goes on.
. "$(dirname "$0")/functions.sh"
. "$(dirname "$0")/vm/vm.sh"
requires_guest
requires_command perl
make_hosts
slow_cable 100mbit

start_source source
fails "$BIN/faultline" vm offer --qmp="$scratch/source.qmp" --listen=$SOURCE_IP:7500 --resume
expect_match "--resume alone" "--pages" "$message"
fails "${at_source[@]}" "$BIN/faultline" vm offer --qmp="$scratch/source.qmp" \
  --listen=$SOURCE_IP:7500 --pages=$SOURCE_IP:7501 --resume
expect_match "a machine that runs" "the machine runs here, so nobody has taken it" "$message"

offer source $SOURCE_IP:7500
accept destination
expect_event offer running
agent_socket=$(event destination running socket)
pages_at=$(event offer running pages)
pages() { attached '.[0].present_pages'; }
more_pages() { (($(pages) > had + 500)); }
server_of_offer() { pgrep -P "${pid[offer]}" -f faultline-server; }

kill -KILL "$(server_of_offer)"
expect_event offer pages_restarted
had=$(pages)
wait_for "further pages" more_pages

stop offer KILL
if says_event destination complete; then fail "the RAM was fetched too soon for this test"; fi
wait_for "a fault that waits" eval '(($(attached ".[0].waiting_faults") > 0))'
expect "the source's state" postmigrate "$(qmp source query-status | jq -r .status)"
spawn resumed "${at_source[@]}" "$BIN/faultline" --output=json vm offer \
  --qmp="$scratch/source.qmp" --listen=$SOURCE_IP:7500 --pages="$pages_at" --resume
expect_event resumed resumed

# A stranger, who has not heard "run", hears it from nobody now.
volume=$("${at_source[@]}" "$BIN/faultline" --server="$pages_at" --output=json volume list | jq -r '.[0].name')
# shellcheck disable=SC2016
answer=$("${at_destination[@]}" bash -c 'exec 3<>"/dev/tcp/$1/7500"
  echo "{\"type\":\"again\",\"volume\":\"$2\",\"offer\":\"x\",\"state\":\"loaded\"}" >&3
  head -n 1 <&3' _ $SOURCE_IP "$volume")
expect_match "what one hears that has only loaded" '"failed".*not known here any more' "$answer"

expect_event resumed connected
expect_event resumed running
slow_cable 2gbit
expect_event destination complete
for name in resumed source; do
  wait_for_exit $name
  expect "the end of $name" 0 "$exit_status"
done
cat "$scratch/resumed.log"
expect_goes_on destination "$(ticks_of source)" "$(passes_of source)"
expect_no_bad source
stop destination TERM
expect "the end by a signal" 0 "$exit_status"

# An offer that is killed before it has said "run".
rm "$scratch/source.console" "$shm/source.mem"
start_source source
offer source $SOURCE_IP:7500
stop offer KILL
wait_for "ticks of the source" ticks_reach source $(($(ticks_of source) + 20))
offer source $SOURCE_IP:7500
accept late
stop offer KILL
wait_for_exit late
expect "the end of an accept whose offer was killed" 1 "$exit_status"
[[ ! -s $scratch/late.console ]] || fail "it has run"
