#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The connection breaks when the source has said "run", so that nobody knows who has the machine. Who
# comes back and proves to be the other end is told again; nobody else is. The source never
# continues by itself, and a connection that breaks before lets it.
. "$(dirname "$0")/functions.sh"
. "$(dirname "$0")/vm/vm.sh"
requires_guest
requires_command perl

# peer COMMANDS...: the other end of an offer, which does what it is told, in order:
#   take UP_TO    hello, ready, loaded, up to that one, and hears what comes in between
#   break         resets the connection
#   again OFFER   connects again, as the one that has loaded; "right" is the offer's own word
#   hear          prints the next message's type
peer() {
  # shellcheck disable=SC2016
  timeout "$PATIENCE" perl -MIO::Socket::INET -MSocket -MJSON::PP -e '
    my $address = shift;
    my ($socket, $machine, %bytes);
    sub dial { $socket = IO::Socket::INET->new(PeerAddr => $address) or die "$address: $!\n" }
    sub say_it { print $socket encode_json({@_}), "\n" }
    sub hear { my $line = <$socket>; defined $line ? decode_json($line) : {type => "end"} }
    while (my $do = shift) {
      if ($do eq "take") {
        my $last = shift;
        dial();
        say_it(type => "hello", version => 3);
        $machine = hear();
        next if $last eq "hello";
        say_it(type => "ready");
        hear()->{type} eq "stopped" or die "not stopped\n";
        my $state = hear();
        read($socket, my $bytes, $state->{bytes}) == $state->{bytes} or die "no state\n";
        next if $last eq "ready";
        say_it(type => "loaded");
        # Until it is said, so that the reset does not overtake it.
        recv($socket, my $byte, 1, MSG_PEEK);
      } elsif ($do eq "break") {
        setsockopt($socket, SOL_SOCKET, SO_LINGER, pack("ii", 1, 0));
        close $socket;
      } elsif ($do eq "again") {
        my $offer = shift;
        dial();
        say_it(type => "again", volume => $machine->{volume}, state => "loaded",
               offer => $offer eq "right" ? $machine->{offer} : $offer);
      } elsif ($do eq "hear") { print hear()->{type}, "\n" }
    }' "$offered_at" "$@"
}

start_source source
for last in hello ready; do
  offer source
  peer take $last break
  wait_for_exit offer
  expect "the end of an offer that broke before it was done" 1 "$exit_status"
  [[ $last == hello ]] || expect_log offer "the machine goes on here"
  wait_for "ticks of the source" ticks_reach source $(($(ticks_of source) + 20))
done

offer source
said=$(peer take loaded break again wrong hear again right hear break again right hear)
expect "what each has heard" "failed run run" "${said//$'\n'/ }"
expect_event offer connected
# The last one has just gone: it may have run the machine.
wait_for_exit offer
expect "the end of the offer" 1 "$exit_status"
expect_log offer "the machine may have run there, so the source stays paused"
expect "the source's state" postmigrate "$(qmp source query-status | jq -r .status)"
expect_no_bad source
