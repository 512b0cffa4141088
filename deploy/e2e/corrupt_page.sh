#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# One byte of one page is damaged on the server's disk: the access to that page gets SIGBUS, as do the
# three that RocksDB keeps in one block with it; all others are right, and the agent's log names the
# pages.
. "$(dirname "$0")/functions.sh"
requires_userfaultfd
requires_linux 6.6 "UFFDIO_POISON"
requires_command perl

readonly DAMAGED=777
readonly LOST=776,777,778,779
image=$scratch/image
random_image "$image" 61 8
pages=$((8 * 256))
start_server
faultline volume import vm "$image"
stop server TERM
expect "exit status of the server" 0 "$exit_status"

# Random bytes are stored as they are: 32 of them in the middle of the page are found in one file.
slice "$image" $((DAMAGED * PAGE + 2000)) 32 >"$scratch/pattern"
damaged=$(perl -e '
  local $/;
  open(my $p, "<:raw", shift) or die; my $pattern = <$p>;
  for my $file (@ARGV) {
    open(my $f, "+<:raw", $file) or die "$file: $!"; my $bytes = <$f>;
    my $at = index($bytes, $pattern);
    next if $at < 0;
    seek($f, $at + 7, 0); print $f chr(ord(substr($bytes, $at + 7, 1)) ^ 0x10);
    print "$file\n";
  }' "$scratch/pattern" $(find "$scratch/store" -type f -size +0))
expect "the number of files that hold the page" 1 "$(wc -w <<<"$damaged")"
echo "damaged page $DAMAGED in $(basename "$damaged")"

start_server
start_agent --volume=vm --fault-policy=poison
answers=$(touch_with --volume=vm --reference="$image" --threads=4 <<<$'check\ncheck')
damage="check pages=$pages right=$((pages - 4)) sigbus=4 wrong=0 sigbus_pages=$LOST first_wrong=none"
expect_match "what the target reads" "$damage.$damage" "$answers"
expect_log agent "attachment 1 .*volume vm.*: page(s)? .*$DAMAGED.* cannot be had: DATA_LOSS.*SIGBUS"
expect "pages that are said to be damaged" 4 "$(grep -c 'cannot be had' "$scratch/agent.log")"

fails faultline volume export vm "$scratch/copy"
expect_match "the message of an export" "page ${LOST%%,*} " "$message"
[[ ! -e $scratch/copy ]] || fail "a damaged export was left behind"
is_alive server || fail "the server has ended"
