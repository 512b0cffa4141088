#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Every benchmark runs, checks its bytes, and gives out what it is asked for: text, JSON, CSV, plots.
# What it measures is not judged here.
. "$(dirname "$0")/functions.sh"
requires_userfaultfd
requires_command jq

mkdir "$scratch/dir"
bench() {
  timeout --kill-after=1 "$PATIENCE" "$BIN/faultline" bench "$@" 2>>"$scratch/bench.log"
}

names=$(bench --list --output=json | jq -r '.[].name' | xargs)
expect "the benchmarks" "fault-random fault-seq fault-stride fault-zipf threads drain \
demand-under-drain demand-under-flood replay writeback import" "$names"

plots=()
if command -v gnuplot >/dev/null; then
  plots=(--plot="$scratch/bench.svg")
else
  fails "$BIN/faultline" bench drain --quick --plot="$scratch/bench.svg"
  expect_match "the message" "gnuplot, which is not installed.*gnuplot-nox" "$message"
fi
# A flood needs clients that are told apart, by TLS.
names=${names/demand-under-flood /}
bench all --quick --directory="$scratch/dir" --output=json --csv="$scratch/bench.csv" \
  "${plots[@]}" >"$scratch/bench.json"
expect_match "the benchmarks of all" \
  "^$names fault-seq, prefetch sequential .*drain, fetches 10 ms late drain, 1gbit drain, 1gbit, lz4 drain, 100gbit drain, 10ms round trip$" \
  "$(jq -r '.[].benchmark' "$scratch/bench.json" | xargs)"
# Whatever else it does, a policy has something to guess where every page follows the other.
jq -e '.[] | select(.benchmark == "fault-seq, prefetch majority").details[] |
  select(.name == "prefetched").faultline.median > 0' "$scratch/bench.json" >/dev/null ||
  fail "nothing was prefetched: $(jq -c . "$scratch/bench.json")"
jq -e '
  def is_spread: [.median, .min, .max] | all(type == "number" and . > 0);
  all(.[];
    (.machine, .kernel, .configuration | type == "string" and . != "") and
    (.figures | length > 0) and
    all(.figures[]; .name != "" and .unit != "" and .floor_name != "" and
      (.faultline | is_spread) and (.floor | is_spread) and (.ratio | is_spread)) and
    any(.details[]; .name | startswith("server CPU")) and
    all(.details[]; (.unit | . == "pages" or . == "touches") or (.faultline | is_spread)))' "$scratch/bench.json" >/dev/null ||
  fail "bad figures: $(jq -c . "$scratch/bench.json")"

expect "quantiles of fault-random" "p50 p90 p99 max" \
  "$(jq -r '.[0].figures[] | select(.unit == "us") | .name' "$scratch/bench.json" | xargs)"
# As many lines as there are figures and details, and one on top.
expect "lines of the CSV file" \
  "$(jq '[.[] | .figures + .details | length] | add + 1' "$scratch/bench.json")" \
  "$(wc -l <"$scratch/bench.csv")"
for name in $names; do
  expect_match "the CSV file" $'\n'"$name," "$(<"$scratch/bench.csv")"
done
if ((${#plots[@]} > 0)); then
  expect_match "the plot" '<svg.*</svg>' "$(tr '\n' ' ' <"$scratch/bench.svg")"
  bench drain --pages=100 --repetitions=1 --directory="$scratch/dir" --plot="$scratch/drain.png" \
    >"$scratch/bench.out"
  expect "the front of the plot" 89504e470d0a1a0a \
    "$(head -c 8 "$scratch/drain.png" | od -An -tx1 | tr -d ' ')"
fi

# One benchmark is one object; flags reach those they are for.
text=$(bench fault-random --size=1MiB --repetitions=2 --transport=unix --threads=2 \
  --agent-flag=--readers=2 --server-flag=--log-level=debug --directory="$scratch/dir" ||
  fail "fault-random has failed")
expect_match "the text" "256 pages of 4 KiB \(1MiB\), Unix socket, .*agent --readers=2, " "$text"
expect_match "the text" "2 repetitions after a warm-up, 2 faulting" "$text"
expect "the name in the JSON text" writeback \
  "$(bench writeback --pages=200 --batch=7 --durability=none --codec=zstd --repetitions=1 \
    --directory="$scratch/dir" --output=json | jq -r .benchmark)"
fails "$BIN/faultline" bench fault-seq --quick --agent-flag=--nonsense --directory="$scratch/dir"
expect_match "the message" "fault-seq: the agent did not come up.*nonsense" "$message"

# A link is as fast as it is said to be, or slower, whatever the machine does.
bench drain --pages=500 --link=100mbit --link-delay=1ms --repetitions=1 --output=json \
  --directory="$scratch/dir" >"$scratch/link.json"
jq -e '.figures[0] | .faultline.median < 12.5 and .floor.median < 12.5' "$scratch/link.json" \
  >/dev/null || fail "a link of 12.5 MB/s has had $(jq -c '.figures[0]' "$scratch/link.json")"

# What is not what it should be is no figure, but an error.
random_image "$scratch/image" 7 1
start_server
start_agent
faultline volume import wrong "$scratch/image" >"$scratch/import.out"
fails "$BIN/faultline-touch" --socket="$agent_socket" --volume=wrong --mode=seq --verify=random
expect_match "the message" "256 of 256 touched pages have wrong bytes" "$message"

fails "$BIN/faultline" bench
expect_match "the message" "The name of a benchmark" "$message"
fails "$BIN/faultline" bench drain --plot="$scratch/drain.gif"
expect_match "the message" 'must end in .png or .svg' "$message"
fails "$BIN/faultline" bench drain --link=fast
expect_match "the message" 'no speed of a link' "$message"
fails "$BIN/faultline" bench drain --link=1gbit --transport=unix
expect_match "the message" 'a limited link is one of TCP' "$message"
[[ -z $(ls -A "$scratch/dir") ]] || fail "left behind: $(ls -A "$scratch/dir")"
[[ ! -s $scratch/bench.log ]] || fail "the benchmarks have said: $(cat "$scratch/bench.log")"
