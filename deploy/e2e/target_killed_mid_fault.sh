#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Two thousand targets are killed in the middle of their handover or of their faults, eight at a time.
# After the second thousand the agent has the descriptors, threads and attachments that it had before,
# hardly more memory, and serves.
. "$(dirname "$0")/functions.sh"
requires_userfaultfd
requires_command jq

readonly LANES=8
# What a killed target took is used again for the next; how much of that there is at a time, shows
# after many only.
readonly WARM_UP=1000 ROUNDS=1000
# Beyond what a warm agent has, in KiB. A leak of 5 KiB for each target would show.
readonly MAX_GROWTH=5120
# Beyond what a warm agent has, of descriptors and of threads: gRPC starts a thread or two when it
# likes. A leak at one target in a hundred would show.
readonly MAX_MORE=4
image=$scratch/image
random_image "$image" 91 32
start_server
faultline volume import vm "$image"
start_agent --volume=vm

# lane SEED COUNT: starts and kills targets, one after the other.
lane() {
  local i line target
  RANDOM=$1
  for ((i = 0; i < $2; ++i)); do
    exec {output}< <(exec setpriv --pdeathsig KILL "$BIN/toucher" --socket="$agent_socket" \
      --volume=vm --threads=2 --reference="$image" <<<check)
    target=$!
    # A quarter of them at any moment of their start; the others once they are attached, at any
    # moment of their faults, of which they have far too many to end before: the delay is there to differ, not to be long enough.
    if ((RANDOM % 4 > 0)); then read -r line <&"$output" || echo "no target"; fi
    sleep "0.00$((RANDOM % 10))"
    kill -KILL "$target" || echo "the target had ended"
    wait "$target" 2>/dev/null || true
    exec {output}<&-
  done
}

# kill_targets COUNT: in all lanes.
kill_targets() {
  local i
  for ((i = 0; i < LANES; ++i)); do
    lane $((SEED + i)) $(($1 / LANES)) >>"$scratch/lanes.out" 2>&1 &
    pid[lane$i]=$!
  done
  for ((i = 0; i < LANES; ++i)); do wait "${pid[lane$i]}" && unset "pid[lane$i]"; done
  wait_for "all attachments to have ended" attached_is length 0
}
# The descriptors and threads of the agent, and its memory.
descriptors() { find /proc/"${pid[agent]}"/fd -type l | wc -l; }
threads() { find /proc/"${pid[agent]}"/task -mindepth 1 -maxdepth 1 | wc -l; }
rss() { awk '/^VmRSS:/ { print $2 }' /proc/"${pid[agent]}"/status; }
holds_no_target() {
  local held
  held=$(find /proc/"${pid[agent]}"/fd -type l -printf '%l\n' | grep -cE 'userfaultfd|pidfd' || true)
  ((held == 0))
}
# By kind, to be shown where the test fails.
what_it_holds() {
  find /proc/"${pid[agent]}"/fd -type l -printf '%l\n' | sed 's/[0-9]\+/N/' | sort | uniq -c
  cat /proc/"${pid[agent]}"/task/*/comm | sort | uniq -c
}
has_no_more_than_before() {
  what_it_holds >"$scratch/held.out"
  holds_no_target && (($(descriptors) <= descriptors + MAX_MORE && $(threads) <= threads + MAX_MORE))
}

readonly SEED=${FAULTLINE_SEED:-$RANDOM}
echo "seed $SEED (FAULTLINE_SEED)"
kill_targets $WARM_UP
wait_for "the targets' descriptors to be closed" holds_no_target
descriptors=$(descriptors)
threads=$(threads)
memory=$(rss)
kill_targets $ROUNDS
wait_for "$descriptors descriptors and $threads threads, as before" has_no_more_than_before
[[ ! -s $scratch/lanes.out ]] || fail "targets ended by themselves: $(sort "$scratch/lanes.out" | uniq -c)"
growth=$(($(rss) - memory))
echo "descriptors $descriptors, threads $threads, resident $memory KiB, $growth KiB more after $ROUNDS targets"
((growth <= MAX_GROWTH)) || fail "the agent has grown by $growth KiB"
expect_match "what a target reads afterwards" "check $(all_right $((32 * 256)))" \
  "$(touch_with --volume=vm --reference="$image" <<<check)"
expect_no_log agent '\] error: '
