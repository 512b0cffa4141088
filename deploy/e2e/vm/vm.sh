# SPDX-License-Identifier: Apache-2.0
#
# What the tests of `faultline vm` share; sourced after functions.sh. Their guest (guest/init.c)
# checks its memory and tells on its console how it fares. Under emulation it is slow, and so is
# everything beside it.

readonly RAM_MIB=192 GUEST_MIB=56
devices=()  # further arguments of every QEMU
programs=$BIN
# What the commands of the two ends of a migration are started with.
at_source=() at_destination=()

requires_guest() {
  requires_root "looking into QEMU's memory"
  requires_userfaultfd
  requires_command jq
  requires_command qemu-system-x86_64
  local reason status=0
  reason=$("$E2E_DIR/vm/guest/make-guest" "$scratch/guest" 2>&1) || status=$?
  ((status != 77)) || skip "$reason"
  ((status == 0)) || fail "make-guest ended with $status: $reason"
  # Memory files are on a tmpfs.
  shm=$scratch/shm
  make_tmpfs "$shm" $((4 * RAM_MIB))M
}

# qemu_command NAME BACKEND: sets ${qemu[@]}, a machine with its console in $scratch/NAME.console.
qemu_command() {
  qemu=(qemu-system-x86_64 -accel tcg -machine pc,memory-backend=mem0 -m $RAM_MIB -smp 1
    -object "$2" -nodefaults -no-user-config -display none -no-reboot "${devices[@]}"
    -serial "file:$scratch/$1.console" -qmp "unix:$scratch/$1.qmp,server=on,wait=off"
    -kernel "$scratch/guest/vmlinuz" -initrd "$scratch/guest/initrd"
    -append "console=ttyS0 quiet mitigations=off no_timer_check panic=-1 memory_mib=${guest_mib:-$GUEST_MIB}
      rest_us=1000 spoil_pass=${spoil_pass:-0} scratch_mib=${scratch_mib:-0}")
}

# start_source NAME: a machine whose RAM is a file, up and through its first pass.
start_source() {
  qemu_command "$1" "memory-backend-file,id=mem0,size=${RAM_MIB}M,share=on,mem-path=$shm/$1.mem"
  spawn "$1" "${at_source[@]}" "${qemu[@]}"
  wait_for "the guest's first pass" passes_reach "$1" 1
}

# private_ram: the backend that is best for a machine that is restored.
private_ram() { echo "memory-backend-ram,id=mem0,size=${RAM_MIB}M"; }

last_of() { # NAME REGEX: of the console's lines that match, the last one's first group
  sed -nE "s/\r//; s/$2.*/\1/p" "$scratch/$1.console" 2>/dev/null | tail -n 1
}
ticks_of() { last_of "$1" '^tick ([0-9]+) ms [0-9]+ pass [0-9]+ bad [0-9]+$'; }
passes_of() { last_of "$1" '^pass ([0-9]+) bad [0-9]+$'; }
passes_reach() { (($(passes_of "$1" | grep . || echo 0) >= $2)); }
ticks_reach() { (($(ticks_of "$1" | grep . || echo 0) >= $2)); }

# expect_no_bad NAME: the guest has found no wrong word.
expect_no_bad() {
  if grep -q -m 1 '^BAD' "$scratch/$1.console"; then
    fail "$1: $(grep -c '^BAD' "$scratch/$1.console") wrong words, $(grep -m 1 '^BAD' "$scratch/$1.console")"
  fi
}

# first_tick NAME: the first one on its console.
first_tick() { sed -nE 's/^tick ([0-9]+) ms .*/\1/p' "$scratch/$1.console" | sed -n 1p; }

# expect_goes_on NAME TICK PASS: the guest's ticks go on from the one that it had elsewhere, and so do
# its passes, two more of which it gets through without a wrong word.
expect_goes_on() {
  local first
  wait_for "two passes of $1" passes_reach "$1" $(($3 + 2))
  first=$(first_tick "$1")
  # A line that was being written may be lost.
  ((first > $2 && first <= $2 + 2)) || fail "$1 begins with tick $first after $2"
  expect_no_bad "$1"
}

# offer NAME [ADDRESS]: the machine of NAME, in the background as "offer"; sets $offered_at.
offer() {
  rm -f "$scratch"/offer.{out,log}
  spawn offer "${at_source[@]}" "$programs/faultline" --output=json vm offer --qmp="$scratch/$1.qmp" \
    --listen="${2:-127.0.0.1:0}"
  expect_log offer '"event":"listening"'
  offered_at=$(jq -r 'select(.event == "listening").address' "$scratch/offer.log")
}

# accept NAME FLAGS...: in the background.
accept() {
  local name=$1
  shift
  qemu_command "$name" "${backend:-$(private_ram)}"
  spawn "$name" "${at_destination[@]}" "$programs/faultline" --output=json vm accept \
    --from="$offered_at" "$@" -- "${wrapper[@]}" "${qemu[@]}"
}

# restore NAME FLAGS...: the saved machine "vm", in the background.
restore() {
  local name=$1
  shift
  qemu_command "$name" "${backend:-$(private_ram)}"
  spawn "$name" "$programs/faultline" --server="$server_address" --output=json vm restore --volume=vm \
    --socket="$agent_socket" "$@" -- "${wrapper[@]}" "${qemu[@]}"
}
wrapper=()  # what accept and restore start QEMU with

# save_a_machine: a server with a saved machine, whose console was that of "source", and an agent.
save_a_machine() {
  start_server
  start_agent
  start_source source
  save source
}

# save NAME: as "vm"; its QEMU quits.
save() {
  faultline vm save --qmp="$scratch/$1.qmp" --volume=vm --quit
  wait_for_exit "$1"
}

# event NAME EVENT KEY: of what the command NAME has said, the last one's value.
event() { jq -r "select(.event == \"$2\").$3" "$scratch/$1.log" | tail -n 1; }
says_event() { says "$1.log" "\"event\":\"$2\""; }
expect_event() { expect_log "$1" "\"event\":\"$2\""; }

# qmp NAME COMMAND [ARGUMENTS]: of the QEMU of NAME, to which nobody else is connected (an offer is);
# prints what it returns.
qmp() {
  # shellcheck disable=SC2016
  perl -MIO::Socket::UNIX -e '
    my ($path, $request) = @ARGV;
    alarm 30;
    my $qemu = IO::Socket::UNIX->new(Peer => $path) or die "$path: $!\n";
    sub answer { while (<$qemu>) { return $_ if /"(return|error|QMP)":/ } die "no answer\n" }
    answer();
    print $qemu "{\"execute\":\"qmp_capabilities\"}\n"; answer();
    print $qemu "$request\n"; print answer();
  ' "$scratch/$1.qmp" "{\"execute\":\"$2\",\"arguments\":${3:-{\}}}" | tee "$scratch/qmp.out" | jq -c .return
  if grep -q '"error"' "$scratch/qmp.out"; then fail "QEMU refuses $2: $(<"$scratch/qmp.out")"; fi
}

# --- two hosts -----------------------------------------------------------------------------------

readonly SOURCE_IP=10.77.0.1 DESTINATION_IP=10.77.0.2

# make_hosts: a network namespace for each end, joined by a cable and by nothing else.
make_hosts() {
  requires_command ip
  local host
  for host in "fl$$-source" "fl$$-destination"; do
    ip netns add "$host" 2>/dev/null || skip "cannot make a network namespace here"
    namespaces+=("$host")
  done
  ip -n "fl$$-source" link add cable type veth peer name cable netns "fl$$-destination"
  ip -n "fl$$-source" address add $SOURCE_IP/24 dev cable
  ip -n "fl$$-destination" address add $DESTINATION_IP/24 dev cable
  for host in "${namespaces[@]}"; do
    ip -n "$host" link set lo up
    ip -n "$host" link set cable up
  done
  at_source=(ip netns exec "fl$$-source")
  at_destination=(ip netns exec "fl$$-destination")
}

# slow_cable RATE: of what the source sends, as tc has it.
slow_cable() {
  requires_command tc
  "${at_source[@]}" tc qdisc replace dev cable root tbf rate "$1" burst 256k latency 100ms 2>/dev/null ||
    skip "cannot shape a link here"
}

# cable down|up
cable() { ip -n "fl$$-source" link set cable "$1"; }
