#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A machine gives memory up, by its balloon and by reports of free pages, and takes it back while
# its RAM still comes over a slow network: RAM that is a file, and then, as it moves on, private
# RAM. No word is wrong.
. "$(dirname "$0")/functions.sh"
. "$(dirname "$0")/vm/vm.sh"
requires_guest
requires_command perl
make_hosts
slow_cable 200mbit

# Free pages are reported only where there are more than 64 MiB of them.
guest_mib=40 scratch_mib=16
devices=(-device virtio-balloon-pci,free-page-reporting=on)
start_source source
if says source.console 'cannot load'; then fail "the guest cannot load its drivers"; fi

# of_agent JQ_EXPRESSION: of the attachment of $to.
of_agent() { agent_socket=$(event "$to" running socket) attached ".[0] | $1"; }
# Keeps how many discards there were when pages were still missing.
balloon_is() {
  while_fetching=$(of_agent "if .drained then $while_fetching else .remove_events_total end")
  [[ $(qmp "$to" query-balloon | jq .actual) == "$1" ]]
}
# Or its memory is all there, and ordinary: then discards are the kernel's own business.
more_discards() { [[ $(of_agent ".remove_events_total > $discards or .drained") == true ]]; }

# move FROM TO BACKEND
move() {
  local from=$1 to=$2 backend=$3 while_fetching=0 discards
  offer "$from" $SOURCE_IP:7500
  accept "$to"
  expect_event "$to" running
  qmp "$to" balloon "{\"value\":$(((RAM_MIB - 48) << 20))}"
  wait_for "the balloon of $to to be inflated" balloon_is $(((RAM_MIB - 48) << 20))
  ((while_fetching >= 1000)) || fail "$while_fetching discards while the RAM was fetched"
  discards=$(of_agent .remove_events_total)
  echo "$to: inflated; $discards discards, $while_fetching of them while the RAM was fetched"
  qmp "$to" balloon "{\"value\":$((RAM_MIB << 20))}"
  wait_for "the balloon of $to to be deflated" balloon_is $((RAM_MIB << 20))
  # That happens two seconds after they were freed.
  wait_for "reports of free pages" more_discards
  expect_event "$to" complete
  wait_for_exit offer
  expect "the end of the offer" 0 "$exit_status"
  expect_goes_on "$to" "$(ticks_of "$from")" "$(passes_of "$to")"
  echo "$to: $(of_agent '"\(.remove_events_total) discards, \(.faults_total) faults, \(.fill_eagain_total) EAGAIN"')"
}
move source file "memory-backend-file,id=mem0,size=${RAM_MIB}M,share=on,mem-path=$shm/file.mem"
move file private "$(private_ram)"
expect_no_bad file
