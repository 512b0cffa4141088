# SPDX-License-Identifier: Apache-2.0
#
# What the end-to-end tests share. A test is one script of this folder, named after the behaviour
# that it checks; it sources this file and uses the real programs. Run one by hand with
#
#   FAULTLINE_BIN=build/dev/bin deploy/e2e/NAME.sh
#
# Exit status: 0 passed, 77 skipped (with the reason), anything else failed. Whatever a test starts
# with spawn() is killed when the script ends, however it ends; what it makes goes into $scratch,
# which is removed. Nothing sleeps for a fixed time: wait_for() polls with a deadline, which is only
# there to end a test that has failed.
set -euo pipefail
export LC_ALL=C

readonly E2E_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly BIN=$(cd "${FAULTLINE_BIN:-$E2E_DIR/../../build/dev/bin}" && pwd)
readonly PAGE=4096
# Of everything that is waited for, in seconds; more where the machine stands still at times.
readonly PATIENCE=${FAULTLINE_PATIENCE:-60}

# What a QEMU is started by that is not root, and the sandbox that libvirt has it in.
readonly UNPRIVILEGED=(setpriv --reuid=65534 --regid=65534 --clear-groups --bounding-set=-all
  --inh-caps=-all)
readonly SANDBOX=(-sandbox "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny")

declare -A pid=()  # of what spawn() has started, by name
declare -a mounted=()
declare -a namespaces=()  # of the network
declare -a outside=()  # files outside of $scratch that a test makes, to be removed
# Short: the path of a socket may have 107 bytes.
scratch=$(mktemp -d "${TMPDIR:-/tmp}/fl-e2e.XXXXXX")
store=rocksdb:$scratch/store
server_address=127.0.0.1:0  # start_server replaces it with the true port
agent_socket=$scratch/agent.sock

# Kills and removes everything. On failure, shows what the programs have said.
cleanup() {
  local status=$? name directory
  trap - EXIT
  set +e
  for name in "${!pid[@]}"; do kill -KILL "${pid[$name]}" 2>/dev/null; done
  wait 2>/dev/null
  if ((status != 0 && status != 77)); then
    for name in "$scratch"/*.log "$scratch"/*.out "$scratch"/*.console; do
      [[ -s $name ]] || continue
      echo "--- the last lines of $(basename "$name"):" >&2
      tail -n 25 "$name" | cut -c -600 >&2
    done
  fi
  for directory in "${mounted[@]}"; do umount "$directory"; done
  for name in "${namespaces[@]}"; do ip netns del "$name"; done
  rm -rf "$scratch" "${outside[@]}"
  exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

fail() {
  echo "FAILED at ${BASH_SOURCE[-1]##*/}:${BASH_LINENO[-2]}: $*" >&2
  exit 1
}

skip() {
  echo "skipped: $*"
  exit 77
}

requires_root() {
  [[ $(id -u) -eq 0 ]] || skip "$1 needs root"
}

requires_command() {
  command -v "$1" >/dev/null || skip "$1 is not installed"
}

# Paged memory needs a userfaultfd.
requires_userfaultfd() {
  [[ $(id -u) -eq 0 || -w /dev/userfaultfd || $(cat /proc/sys/vm/unprivileged_userfaultfd) == 1 ]] ||
    skip "this user may not have a userfaultfd"
}

# requires_linux MAJOR.MINOR WHY
requires_linux() {
  local running
  running=$(uname -r)
  [[ $(printf '%s\n' "$1" "$running" | sort -V | head -n 1) == "$1" ]] ||
    skip "$2 needs Linux $1, this is $running"
}

# wait_for WHAT COMMAND...: until the command succeeds.
wait_for() {
  local what=$1 deadline=$((SECONDS + PATIENCE))
  shift
  until "$@"; do
    ((SECONDS < deadline)) || fail "waited $PATIENCE s in vain for $what"
    sleep 0.02
  done
}

# --- processes -----------------------------------------------------------------------------------

# spawn NAME COMMAND...: in the background, its output in $scratch/NAME.out and .log (appended), its
# process id in ${pid[NAME]}. Not to be called in a subshell: it dies with the shell that calls it.
spawn() {
  local name=$1
  shift
  setpriv --pdeathsig KILL "$@" <"${stdin:-/dev/null}" \
    >>"$scratch/$name.out" 2>>"$scratch/$name.log" &
  pid[$name]=$!
}

is_alive() { kill -0 "${pid[$1]}" 2>/dev/null; }

# wait_for_exit NAME: sets $exit_status, 128 + N where signal N has killed it.
wait_for_exit() {
  local name=$1 watched
  wait_for "$name to end" has_exited "$name"
  watched=${pid[$name]}
  unset "pid[$name]"
  exit_status=0
  # The shell's own word on a process that a signal has killed is left out.
  wait "$watched" 2>/dev/null || exit_status=$?
}
has_exited() {
  local state
  state=$(sed -nE 's/^State:\s+(.).*/\1/p' "/proc/${pid[$1]}/status" 2>/dev/null) || true
  [[ -z $state || $state == Z ]]
}

# stop NAME SIGNAL
stop() {
  kill "-$2" "${pid[$1]}"
  wait_for_exit "$1"
}

# --- what programs have said ---------------------------------------------------------------------

says() { grep -qE -e "$2" "$scratch/$1" 2>/dev/null; }

# expect_log NAME REGEX: NAME has written it to stderr, or does so soon.
expect_log() { wait_for "\"$2\" in the log of $1" says "$1.log" "$2"; }

# expect_out NAME REGEX: the same of stdout.
expect_out() { wait_for "\"$2\" in the output of $1" says "$1.out" "$2"; }

expect_no_log() {
  if says "$1.log" "$2"; then fail "$1 has said: $(grep -E -m 1 -e "$2" "$scratch/$1.log")"; fi
}

# expect WHAT EXPECTED FOUND
expect() {
  [[ $2 == "$3" ]] || fail "$1: expected \"$2\", found \"$3\""
}

# expect_match WHAT REGEX FOUND
expect_match() {
  [[ $3 =~ $2 ]] || fail "$1: expected a match of \"$2\", found \"$3\""
}

# fails COMMAND...: sets $message to what it says on stderr, and $exit_status. It must fail, and not
# by a signal.
fails() {
  exit_status=0
  message=$("$@" 2>&1 >/dev/null) || exit_status=$?
  ((exit_status > 0 && exit_status < 126)) || fail "\"$*\" ended with $exit_status and: $message"
}

# --- the programs --------------------------------------------------------------------------------

# start_server FLAGS...: on $store, at $server_address; a second time, at the same port as before.
start_server() {
  local before
  before=$(count_lines server.log 'listening on ')
  spawn server "$BIN/faultline-server" --listen="$server_address" --store="$store" "$@"
  wait_for "the server to listen" server_listens "$before"
  server_address=$(sed -nE 's/.*listening on ([^,;]+)[,;].*/\1/p' "$scratch/server.log" | tail -n 1)
}
count_lines() {
  [[ -e $scratch/$1 ]] || : >"$scratch/$1"
  grep -c -e "$2" "$scratch/$1" || true
}
server_listens() {
  (($(count_lines server.log 'listening on ') > ${1:-0})) && return
  if has_exited server; then fail "the server has ended"; fi
  return 1
}

# start_agent FLAGS...: for $server_address, at $agent_socket.
start_agent() {
  spawn agent "$BIN/faultline-agent" --server="$server_address" --socket="$agent_socket" "$@"
  wait_for "the agent to listen" agent_answers
}
agent_answers() {
  "$BIN/faultline" attachments --socket="$agent_socket" >/dev/null 2>&1 && return
  if has_exited agent; then fail "the agent has ended"; fi
  return 1
}

faultline() { "$BIN/faultline" --server="$server_address" "$@"; }

# attached JQ_EXPRESSION: of the list of the agent's attachments.
attached() {
  "$BIN/faultline" --output=json attachments --socket="$agent_socket" | jq -r "$1"
}
attached_is() { [[ $(attached "$1") == "$2" ]]; }

# scrape NAME: the metrics of a program that was started with --metrics.
scrape() {
  curl -sSf "$(sed -nE 's/.* metrics at (http.*)$/\1/p' "$scratch/$1.log" | tail -n 1)"
}

# metric NAME SERIES: the value of one series of it, as it is written; nothing where there is none.
metric() { scrape "$1" | SERIES=$2 awk 'index($0, ENVIRON["SERIES"] " ") == 1 { print $NF }'; }
metric_is() { [[ $(metric "$1" "$2") == "$3" ]]; }
# metric_exceeds NAME SERIES LEAST
metric_exceeds() { awk "BEGIN { exit !($(metric "$1" "$2" | grep . || echo 0) > $3) }"; }

# touch_with FLAGS... <<<COMMANDS: runs a target to its end; prints what it says.
touch_with() {
  timeout --kill-after=1 "$PATIENCE" "$BIN/toucher" --socket="$agent_socket" "$@" \
    2>>"$scratch/toucher.log"
}

# start_toucher NAME FLAGS...: in the background, to be told what to do with tell().
start_toucher() {
  local name=$1
  shift
  rm -f "$scratch/$name.in" "$scratch/$name.out"
  mkfifo "$scratch/$name.in"
  # Held open for reading too, so that neither end waits for the other; ends with "unmap".
  exec {to_toucher[$name]}<>"$scratch/$name.in"
  stdin=$scratch/$name.in spawn "$name" "$BIN/toucher" --socket="$agent_socket" "$@"
}
declare -A to_toucher=()

# tell NAME LINE
tell() { echo "$2" >&"${to_toucher[$1]}"; }

# --- packages ------------------------------------------------------------------------------------

# make_packages: the Debian packages of the build, into $scratch/packages.
make_packages() {
  requires_command cpack
  (cd "$BIN/.." && cpack -B "$scratch/packages") >"$scratch/cpack.log" 2>&1 ||
    fail "cpack has failed; is everything built in $BIN/..?"
  rm -rf "$scratch/packages/_CPack_Packages"
}

# --- images --------------------------------------------------------------------------------------

# random_bytes SEED COUNT: always the same for a seed.
random_bytes() {
  # The cipher ends with a broken pipe, as it should.
  { openssl enc -aes-128-ctr -K "$(printf '%032x' "$1")" -iv 0 -in /dev/zero 2>/dev/null || true; } |
    head -c "$2"
}

# random_image FILE SEED MIB
random_image() {
  echo "$(basename "$1"): $3 MiB of random bytes, seed $2"
  random_bytes "$2" $(($3 << 20)) >"$1"
}

# slice FILE OFFSET COUNT: bytes of a file.
slice() { dd if="$1" iflag=skip_bytes,count_bytes bs=64K skip="$2" count="$3" status=none; }

# make_tmpfs DIRECTORY SIZE: an own small file system.
make_tmpfs() {
  requires_root "mounting a small file system"
  mkdir -p "$1"
  mount -t tmpfs -o "size=$2" tmpfs "$1" 2>/dev/null || skip "cannot mount a tmpfs here"
  mounted+=("$1")
}

# What toucher says when all of N pages are right.
all_right() { echo "pages=$1 right=$1 sigbus=0 wrong=0 sigbus_pages=none first_wrong=none"; }

# --- churn ---------------------------------------------------------------------------------------

# churn FLAGS...: `faultline churn`, which must find no wrong byte and no hang. Its report is in
# $scratch/churn.json.
churn() {
  echo "faultline churn $*"
  "$BIN/faultline" --output=json churn --directory="$scratch" "$@" >"$scratch/churn.json" ||
    fail "faultline churn $* ended with $?: $(jq -c .target "$scratch/churn.json")"
  jq -r '.target | "\(.operations_total) operations, \(.checked_pages_total) pages checked, " +
    "\(.wrong_bytes_total) wrong bytes, \(.hangs_total) hangs, worst: \(.worst_operation) " +
    "\(.worst_us) us"' "$scratch/churn.json"
  expect "wrong bytes" 0 "$(jq .target.wrong_bytes_total "$scratch/churn.json")"
  expect "hangs" 0 "$(jq .target.hangs_total "$scratch/churn.json")"
}

# expect_agent_count COUNTER LEAST: of all attachments together.
expect_agent_count() {
  local found
  found=$(jq ".agent.$1 // 0" "$scratch/churn.json")
  ((found >= $2)) || fail "the agent's $1: expected at least $2, found $found"
}

# expect_operations NAME LEAST
expect_operations() {
  local found
  found=$(jq "[.target.operations[] | select(.name == \"$1\") | .done_total] | add // 0" \
    "$scratch/churn.json")
  ((found >= $2)) || fail "operations \"$1\": expected at least $2, found $found"
}
