#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Unmodified programs give the same output in less memory than they need, fork and execute as
# without, and their exit status and signals pass through. What cannot have far memory is refused,
# saying why, and nothing is left on the server.
. "$(dirname "$0")/functions.sh"
requires_userfaultfd
requires_command jq

start_server
run() { faultline run --local-memory="$local_memory" "$@"; }

# The workloads check each of their bytes. Not more of their memory is here than they may have.
local_memory=8MiB
for name in sequential zipf hash-table; do
  run --policy=fifo --stats="$scratch/$name.stats" -- \
    "$BIN/faultline-workload" "$name" --size=20MiB --threads=2 >"$scratch/$name.out"
  expect_match "$name" 'all bytes right' "$(cat "$scratch/$name.out")"
  jq -e '[.attachments[].evicted_pages_total] | add > 2048' "$scratch/$name.stats" >/dev/null ||
    fail "$name was not evicted: $(cat "$scratch/$name.stats")"
  jq -e 'all(.attachments[]; .resident_pages <= 2048)' "$scratch/$name.stats" >/dev/null ||
    fail "$name has more than its share: $(cat "$scratch/$name.stats")"
done

# What happens to the pages can be written down.
mkdir "$scratch/trace"
run --trace="$scratch/trace" -- "$BIN/faultline-workload" zipf --size=20MiB >"$scratch/traced.out"
info=$("$BIN/faultline" trace info "$scratch/trace/1.trace")
for kind in 'fault +demand' 'fault +victim' 'fill +zero' 'evict +dirty' 'writeback +done'; do
  expect_match "the trace" "$kind +[1-9]" "$info"
done

# mremap, madvise, munmap and fork race the evictions of the same pages.
run -- "$BIN/faultline-workload" allocator-churn --size=16MiB --threads=2 >"$scratch/churn.out"
expect_match "the allocator's churn" 'all bytes right' "$(cat "$scratch/churn.out")"

# A program of everybody's, with pipes and children.
seq 1 200000 | shuf --random-source=<(yes) >"$scratch/numbers"
expect "sort" "$(sort -S 20M "$scratch/numbers" | md5sum)" \
  "$(run --policy=second-chance -- sort -S 20M "$scratch/numbers" | md5sum)"
expect "children" "$(seq 1 30 | md5sum)" \
  "$(run -- bash -c 'for i in {1..30}; do (echo $i); done' | md5sum)"

# A child reads what its parent had when it forked, although the parent goes on and is evicted.
cat >"$scratch/fork.py" <<'END'
import os, sys
pages = [bytes([i % 251]) * 5000 for i in range(3000)]
read, write = os.pipe()
if os.fork() == 0:
    os.read(read, 1)  # once the parent has changed all of it
    sys.exit(0 if all(pages[i] == bytes([i % 251]) * 5000 for i in range(3000)) else 9)
for i in range(3000):
    pages[i] = bytes([(i + 1) % 251]) * 5000
for i in range(3000):
    assert pages[i] == bytes([(i + 1) % 251]) * 5000
os.write(write, b"x")
sys.exit(os.waitpid(-1, 0)[1] >> 8)
END
local_memory=4MiB
run -- python3 "$scratch/fork.py"

# Exit status and signals.
fails run -- bash -c 'exit 42'
expect "the exit status" 42 "$exit_status"
exit_status=0
run -- bash -c 'kill -KILL $$' || exit_status=$?
expect "the status of a killed one" 137 "$exit_status"

# Refusals.
exit_status=0
message=$(run -- "$scratch/nowhere" 2>&1) || exit_status=$?
expect "the status of a missing one" 127 "$exit_status"
expect_match "a missing program" 'there is no such program' "$message"
cp "$(command -v sleep)" "$scratch/setuid" && chown 65534 "$scratch/setuid" &&
  chmod u+s "$scratch/setuid"
fails run -- "$scratch/setuid" 0
expect_match "a setuid program" 'changes its user or group' "$message"
printf 'int main(){return 0;}' | cc -static -x c - -o "$scratch/static"
fails run -- "$scratch/static"
expect_match "a static program" 'is a static or 32-bit program' "$message"
fails run --policy=clairvoyant -- true
expect_match "an unknown policy" 'fifo' "$message"
fails run --policy="$scratch/missing.so" -- true
expect "the status of a missing plug-in" 125 "$exit_status"
expect_match "a missing plug-in" "cannot load the policy $scratch/missing.so: No such file" "$message"
root=$E2E_DIR/../..
cc -shared -fPIC -I"$root" -DFAULT=3 -o "$scratch/other.so" "$root/client/evict/faulty_policy.c"
fails run --policy="$scratch/other.so" -- true
expect_match "a plug-in for another version" 'is for version 2 of faultline_policy.h, not 1' "$message"
for local_memory in 0 64KiB; do
  fails run -- true
  expect_match "a tiny budget" 'less than 1MiB' "$message"
done
for local_memory in 0% 101%; do
  fails run -- true
  expect_match "a share that is none" 'give 1% to 100%, or a size' "$message"
done
# Larger than the volume, or than the machine: all of it stays here.
local_memory=1TiB
run --stats="$scratch/large.stats" -- "$BIN/faultline-workload" zipf --size=20MiB >"$scratch/large.out"
expect_match "a budget larger than all there is" 'all bytes right' "$(cat "$scratch/large.out")"
jq -e 'all(.attachments[]; .evicted_pages_total == 0)' "$scratch/large.stats" >/dev/null ||
  fail "something was evicted: $(cat "$scratch/large.stats")"

expect "volumes that are left" '[]' "$(faultline volume list --output=json | jq -c '[.. | .name? // empty]')"
