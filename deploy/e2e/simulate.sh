#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The simulator counts the misses of policies beside the bounds, of a pattern and of the trace of the
# same accesses alike, in tables and in JSON; a policy may be a shared object. The trace can be
# looked into and converted. What makes no sense is refused with the reason.
. "$(dirname "$0")/functions.sh"
requires_command jq
requires_command cc

trace=$scratch/zipf.trace
text=$("$BIN/faultline" simulate --generate=zipf --writes=25% --victim-stage=0%,15% --write-trace="$trace")
expect_match "the first line" "^zipf: 160000 accesses, 64MiB" "$text"
for line in 'fifo +none +16MiB +0B ' 'second-chance +none +16MiB +2\.4MiB ' 's3-fifo ' 'lru \* ' 'min \* '; do
  expect_match "a line of the table" $'\n'"$line" "$text"
done

# The pattern and its trace are the same program.
args=(--policy=fifo,s3-fifo --prefetch=none,streams --local=25%,32MiB --output=json)
"$BIN/faultline" simulate --generate=zipf --writes=25% "${args[@]}" | jq 'del(.source)' >"$scratch/pattern.json"
"$BIN/faultline" simulate "$trace" "${args[@]}" | jq 'del(.source)' >"$scratch/trace.json"
cmp "$scratch/pattern.json" "$scratch/trace.json" || fail "the trace gives other figures"
jq -e '(.runs | length == 8) and (.bounds | length == 2) and .accesses == 160000 and
  .volume_pages == 16384 and .records_missing == 0 and (.of_faults | not) and
  ([.runs[] | .misses > 0 and .pages_out > 0] | all) and
  ([.bounds[] | .min_misses <= .lru_misses] | all)' "$scratch/trace.json" >/dev/null ||
  fail "bad figures: $(cat "$scratch/trace.json")"
# The claim for S3-FIFO with the victim stage, against FIFO that has all of the memory.
"$BIN/faultline" simulate --generate=zipf --policy=fifo,s3-fifo --victim-stage=0%,15% --output=json |
  jq -e '[.runs[] | select(.policy == "fifo" and .victim_stage_pages == 0)][0].misses as $fifo |
    [.runs[] | select(.policy == "s3-fifo" and .victim_stage_pages > 0)][0].misses <= 0.85 * $fifo' \
    >/dev/null || fail "s3-fifo does not save 15 % of the misses"

# A policy of one's own, from the example.
source=$E2E_DIR/../../client/evict/clock_policy.c
cc -shared -fPIC -O2 -I"$E2E_DIR/../.." -o "$scratch/mine.so" "$source"
text=$("$BIN/faultline" simulate "$trace" --policy="fifo,$scratch/mine.so")
expect_match "the line of the shared object" $'\n'"$scratch/mine.so +none " "$text"

expect "records in the trace" 160000 "$("$BIN/faultline" trace info "$trace" --output=json | jq .records)"
"$BIN/faultline" trace convert "$trace" --csv >"$scratch/trace.csv"
expect "lines of the CSV" 160001 "$(wc -l <"$scratch/trace.csv")"
expect "its names" time_ns,kind,outcome,thread,page,count,queue_ns,transfer_ns,memory_ns \
  "$(head -n 1 "$scratch/trace.csv")"
expect "its sorts" $'access,read\naccess,write' "$(tail -n +2 "$scratch/trace.csv" | cut -d, -f2,3 | sort -u)"

# Cut off: what is whole is used, and what is missing said.
truncate --size=4000000 "$trace"
text=$("$BIN/faultline" simulate "$trace")
expect_match "the note" "note: 60103 records of the trace are missing" "$text"

refused() {
  local pattern=$1
  shift
  fails "$BIN/faultline" simulate "$@"
  expect_match "the message" "$pattern" "$message"
}
refused 'give either a TRACE or --generate' --local=25%
refused 'give either a TRACE or --generate' "$trace" --generate=zipf
refused 'unknown pattern "zap"; known are seq, ' --generate=zap
refused 'unknown eviction policy "lru"; known are fifo, ' --generate=zipf --policy=lru
refused 'cannot load the policy .*/missing.so: No such file' --generate=zipf --policy="$scratch/missing.so"
refused 'unknown prefetch policy "all"' --generate=zipf --prefetch=all
refused '"200%" is not between 0% and 100%' --generate=zipf --local=200%
refused 'local=0B is less than a page' --generate=zipf --local=0
refused 'victim-stage=100% leaves nothing' --generate=zipf --victim-stage=100%
refused 'is no trace' /etc/passwd
refused 'cannot open the trace /nowhere' /nowhere
refused 'exists and is no trace' --generate=zipf --write-trace="$scratch/trace.csv"
