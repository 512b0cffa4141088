#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The Debian packages: what is in them, that a project finds and uses the library by CMake and by
# pkg-config, that systemd takes the units and finds them tight, and that the programs in them tell
# a service manager when they are ready and take a socket over from it.
. "$(dirname "$0")/functions.sh"
requires_userfaultfd
for command in dpkg-shlibdeps file groff pkg-config perl systemd-analyze \
  systemd-socket-activate systemd-sysusers; do
  requires_command $command
done
readonly BUILD=$BIN/.. DEPLOY=$E2E_DIR/.. ROOT=$scratch/root
readonly PACKAGES=(faultline-server faultline-agent libfaultline0 libfaultline-dev)
# Of `systemd-analyze security`: 0 is tight, 10 open. An agent that has CAP_SYS_PTRACE and the
# system calls of a debugger cannot be as tight as a server.
readonly SERVER_EXPOSURE=15 AGENT_EXPOSURE=26  # in tenths

# --- made, and what is in them -------------------------------------------------------------------

make_packages
mkdir "$ROOT" "$scratch/control"
for package in "${PACKAGES[@]}"; do
  deb=$(echo "$scratch/packages/${package}"_*.deb)
  [[ -f $deb ]] || fail "there is no package $package"
  expect "name of $deb" "$package" "$(dpkg-deb -f "$deb" Package)"
  dpkg-deb -x "$deb" "$ROOT"
  dpkg-deb -e "$deb" "$scratch/control/$package"
done
expect "packages" ${#PACKAGES[@]} "$(find "$scratch/packages" -name '*.deb' | wc -l)"
depends() { dpkg-deb -f "$scratch/packages/$1"_*.deb Depends; }
expect_match "what the server needs" 'librocksdb[0-9.]+.*libgrpc|libgrpc.*librocksdb' \
  "$(depends faultline-server)"
expect_match "what the agent needs" 'libfaultline0 \(= ' "$(depends faultline-agent)"
if [[ $(depends libfaultline0) =~ grpc|protobuf|absl ]]; then
  fail "a program with libfaultline would need $(depends libfaultline0)"
fi
for file in etc/faultline/{agent,server}.toml usr/bin/faultline{,-agent,-server,-churn,-lab} \
  usr/bin/faultline-{touch,workload} usr/include/faultline{,_policy}.h \
  usr/lib/cmake/Faultline/FaultlineConfig{,Version}.cmake usr/lib/faultline/libfaultline-run-preload.so \
  usr/lib/faultline/libfaultline-vm-preload.so usr/lib/libfaultline{,-preload}.so \
  usr/lib/libfaultline.so.0 usr/lib/pkgconfig/faultline.pc usr/lib/sysusers.d/faultline-{agent,server}.conf \
  usr/lib/systemd/system/faultline-agent.{service,socket} usr/lib/udev/rules.d/60-faultline.rules \
  usr/lib/systemd/system/faultline-server.service usr/share/bash-completion/completions/faultline \
  usr/share/doc/faultline-{agent,server}/{copyright,operators-guide.md}; do
  [[ -s $ROOT/$file ]] || fail "no package has $file"
done
if grep -rl "$scratch\|$(cd "$BUILD" && pwd)" "$ROOT/usr/lib/cmake" "$ROOT/usr/lib/pkgconfig"; then
  fail "the paths of this build are in what is installed"
fi
for package in faultline-server faultline-agent; do
  expect "configuration files of $package" "/etc/faultline/${package#faultline-}.toml" \
    "$(cat "$scratch/control/$package/conffiles")"
  for script in postinst prerm; do sh -n "$scratch/control/$package/$script"; done
done
systemd-sysusers --root="$ROOT" faultline-server.conf faultline-agent.conf >"$scratch/users.log" 2>&1
expect_match "users" 'faultline-server.*faultline-agent|faultline-agent.*faultline-server' \
  "$(cut -d: -f1 "$ROOT/etc/passwd" | xargs)"
expect_match "groups" '(^| )faultline( |$)' "$(cut -d: -f1 "$ROOT/etc/group" | xargs)"

# A manual page for each program, in which each of its flags is explained.
for program in "$ROOT"/usr/bin/*; do
  name=$(basename "$program")
  page=$(find "$ROOT/usr/share/man" -name "$name.[18]")
  [[ -n $page ]] || fail "$name has no manual page"
  warnings=$(groff -man -ww -z -rLL=120n "$page" 2>&1) || true
  expect "what groff says of the page of $name" "" "$warnings"
  text=$(sed 's/\\-/-/g' "$page")
  for flag in $("$BIN/$name" --help | grep -oE '^  (-[a-z],)?--[a-z-]+' | grep -oE -- '--.*'); do
    [[ $text == *"$flag"* ]] || fail "the page of $name does not have $flag"
  done
done
expect_match "a subcommand in the page of faultline" 'FAULTLINE VOLUME WORKING-SET' \
  "$(cat "$ROOT/usr/share/man/man1/faultline.1")"

# --- units ---------------------------------------------------------------------------------------

units=(faultline-server.service faultline-agent.service faultline-agent.socket)
# Its findings do not always change its exit status. Units of the system that are not in this root
# are none of ours.
systemd-analyze verify --man=no --recursive-errors=no --root="$ROOT" "${units[@]}" \
  >"$scratch/verify.log" 2>&1 || fail "systemd-analyze verify finds something"
if grep faultline "$scratch/verify.log"; then fail "systemd-analyze verify finds something"; fi
tight() {
  systemd-analyze security --offline=yes --root="$ROOT" --threshold="$2" "$1" \
    >"$scratch/security.log" 2>&1 || fail "$1 is more open than $2: $(tail -n 1 "$scratch/security.log")"
  grep exposure "$scratch/security.log"
}
tight faultline-server.service $SERVER_EXPOSURE
tight faultline-agent.service $AGENT_EXPOSURE

# --- a service manager ---------------------------------------------------------------------------

image=$scratch/image
random_image "$image" 71 4
spawn manager perl -MIO::Socket::UNIX -e '$| = 1;
  my $s = IO::Socket::UNIX->new(Type => SOCK_DGRAM, Local => $ARGV[0]) or die $!;
  while (defined $s->recv(my $m, 4096)) { print "$m\n" }' "$scratch/notify"
wait_for "the service manager" test -S "$scratch/notify"
told() { (($(grep -c "^$1\$" "$scratch/manager.out") == $2)); }

port=$(comm -23 <(seq 20000 29999) <(ss -Htan | grep -oE ':[0-9]+ ' | tr -d ': ' | sort -u) | shuf -n 1)
server_address=127.0.0.1:$port
sed "s|7400|$port|; s|/var/lib/faultline|$scratch/store|; s|127.0.0.1:7401|127.0.0.1:0|" \
  "$ROOT/etc/faultline/server.toml" >"$scratch/server.toml"
NOTIFY_SOCKET=$scratch/notify spawn server "$ROOT/usr/bin/faultline-server" \
  --config="$scratch/server.toml"
wait_for "the server to say that it is ready" told READY=1 1
faultline volume import vm "$image"

sed "s|127.0.0.1:7400|$server_address|; s|/run/faultline/agent.sock|$agent_socket|" \
  "$ROOT/etc/faultline/agent.toml" >"$scratch/agent.toml"
# Starts the agent, as the same process, at the first connection.
spawn agent systemd-socket-activate --listen="$agent_socket" --setenv=NOTIFY_SOCKET="$scratch/notify" \
  "$ROOT/usr/bin/faultline-agent" --config="$scratch/agent.toml"
wait_for "the handover socket" test -S "$agent_socket"

# --- a project that uses the library -------------------------------------------------------------

right="$((4 << 20)) bytes are right"
cmake -S "$DEPLOY/packages/consumer" -B "$scratch/consumer" -DCMAKE_PREFIX_PATH="$ROOT/usr" \
  >"$scratch/consumer.log" 2>&1
cmake --build "$scratch/consumer" >>"$scratch/consumer.log" 2>&1
expect "with find_package" "$right" "$("$scratch/consumer/consumer" "$agent_socket" vm "$image")"
wait_for "the agent to say that it is ready" told READY=1 2
expect_log agent 'ready: handovers at '
export PKG_CONFIG_PATH=$ROOT/usr/lib/pkgconfig
# shellcheck disable=SC2046
cc -o "$scratch/by_pkg_config" "$DEPLOY/packages/consumer/consumer.c" \
  $(pkg-config --cflags --libs faultline) -Wl,-rpath,"$(pkg-config --variable=libdir faultline)"
expect "with pkg-config" "$right" "$("$scratch/by_pkg_config" "$agent_socket" vm "$image")"

# The path belongs to whoever has opened it.
stop agent TERM
wait_for "the agent to say that it stops" told STOPPING=1 1
[[ -S $agent_socket ]] || fail "the agent has removed the socket that was passed to it"
# Another socket than --socket is none to serve on.
rm "$agent_socket"
spawn other systemd-socket-activate --listen="$scratch/other.sock" \
  "$ROOT/usr/bin/faultline-agent" --config="$scratch/agent.toml"
wait_for "its socket" test -S "$scratch/other.sock"
! "$ROOT/usr/bin/faultline" attachments --socket="$scratch/other.sock" >/dev/null 2>&1 ||
  fail "it serves there"
expect_log other 'cannot start: .*other.sock, but --socket is .*agent.sock; make ListenStream='

# --- what the installed programs find ------------------------------------------------------------

"$ROOT/usr/bin/faultline" demo --directory="$scratch" --input="$image" >"$scratch/demo.out"
if [[ $(id -u) -eq 0 && $(printf '6.9\n%s' "$(uname -r)" | sort -V | head -n 1) == 6.9 ]]; then
  "$ROOT/usr/bin/faultline" --server="$server_address" run --local-memory=8MiB -- \
    "$ROOT/usr/bin/faultline-workload" sequential --size=16MiB >"$scratch/run.out"
else
  echo "faultline run from the package is left out: it needs root and Linux 6.9"
fi
stop server TERM
wait_for "the server to say that it stops" told STOPPING=1 2
