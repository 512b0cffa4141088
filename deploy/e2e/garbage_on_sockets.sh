#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Random bytes, broken requests and connections that say nothing, at the server's port and at the
# agent's socket: both live on, serve, and keep no connection.
. "$(dirname "$0")/functions.sh"
requires_userfaultfd
requires_command jq
requires_command perl

image=$scratch/image
random_image "$image" 201 1
start_server
faultline volume import vm "$image"
start_agent --volume=vm --handover-timeout=2s
descriptors() { find /proc/"${pid[agent]}"/fd -type l | wc -l; }
expect_match "what a target reads before" "check $(all_right 256)" \
  "$(touch_with --volume=vm --reference="$image" <<<check)"
wait_for "the attachment to have ended" attached_is length 0
before=$(descriptors)

# send_garbage ADDRESS: forty connections; the seed is printed.
send_garbage() {
  perl -MIO::Socket::INET -MIO::Socket::UNIX -e '
    my ($address, $seed) = @ARGV;
    srand($seed);
    sub peer {
      return $address =~ m{^/} ? IO::Socket::UNIX->new(Peer => $address)
                               : IO::Socket::INET->new(PeerAddr => $address);
    }
    my @texts = ("{", "[", "[]", "{}", "[{}]", "null\n", "\"x\"", "[" x 100000, "{\"volume\":\"vm\"}",
      "{\"detach\":true}", "{\"query\":\"attachments\",\"x\":1}", "{\"query\":\"", "\0" x 5000,
      "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET / HTTP/1.1\r\n\r\n", "x" x 2000000,
      "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" . join("", map { chr(int(rand(256))) } 1 .. 9000));
    $SIG{PIPE} = "IGNORE";
    for my $i (0 .. 39) {
      # Each by a process of its own: the agent kills a peer whose handover in Firecracker \x27s form
      # fails, since it could only hang.
      next if fork() != 0;
      my $socket = peer() or die "cannot connect to $address: $!";
      $socket->timeout(5);
      my $text = $i < @texts ? $texts[$i]
                             : join("", map { chr(int(rand(256))) } 1 .. 1 + int(rand(5000)));
      syswrite($socket, $text);
      if ($i % 3 == 0) { shutdown($socket, 1); }
      # Some go at once, some wait until the other end closes.
      sysread($socket, $text, 1000) if $i % 4 == 0;
      exit 0;
    }
    1 while wait() > 0;
    print "seed $seed: 40 connections to $address\n";' "$1" "${FAULTLINE_SEED:-$RANDOM}"
}
send_garbage "$agent_socket"
send_garbage "$server_address"
send_garbage "$agent_socket"

expect_match "what a target reads after" "check $(all_right 256)" \
  "$(touch_with --volume=vm --reference="$image" <<<check)"
expect_match "the volumes" $'\nvm ' "$(faultline volume list)"
expect_log agent 'request of process [0-9]+ \(perl\) refused'
no_more_descriptors() { (($(descriptors) <= before)); }
wait_for "the connections to be closed" no_more_descriptors
expect "the attachments" 0 "$(attached length)"
