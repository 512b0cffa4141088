#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# An experiment of the real workloads, whose far memory is a script: results, summary and plots are
# there, kernel swap takes part where this machine lets it, and nothing is left of it on the machine.
. "$(dirname "$0")/functions.sh"
requires_command jq

cat >"$scratch/run" <<'SCRIPT'
#!/bin/bash
for argument; do case $argument in --stats=*) stats=${argument#--stats=} ;; esac; done
while [[ $1 != -- ]]; do shift; done
shift
"$@" || exit
echo '{"faults_total": 100, "joined_faults_total": 10, "copied_pages_total": 80}' >"$stats"
SCRIPT
chmod +x "$scratch/run"

# write_spec SWAP: of programs that take milliseconds.
write_spec() {
  cat >"$scratch/spec.toml" <<SPEC
name = "end to end"
repetitions = 2
timeout = "1m"
command = ["$scratch/run", "--local={local}", "--policy={policy}", "--stats={stats}", "--", "{program}"]
[[programs]]
workload = "stride"
size = "64MiB"
passes = 2
[[programs]]
name = "seq"
command = ["seq", "100000"]
size = "1MiB"
[sweep]
local = ["50%"]
policy = ["fifo", "s3-fifo"]
programs = ["stride"]
[baselines]
swap = $1
swap-directory = "$swap_directory"
SPEC
}
experiment() { "$BIN/faultline" --output=json experiment "$scratch/spec.toml" --directory="$scratch/out" "$@"; }
swap_directory=$(mktemp -d "${FAULTLINE_SWAP_DIRECTORY:-/var/tmp}/fl-e2e-swap.XXXXXX")
outside+=("$swap_directory")

# Another experiment may be running beside.
control_groups() { find /sys/fs/cgroup -name 'faultline-experiment.*' 2>/dev/null || true; }
groups_before=$(control_groups)

plots=--no-plots
command -v gnuplot >/dev/null && plots=--plots
write_spec false
expect "the runs of a dry run" 8 "$(experiment --dry-run | grep -c '^#')"
[[ ! -e $scratch/out ]] || fail "a dry run has made a folder"
experiment $plots >"$scratch/summary.json" 2>"$scratch/experiment.log" ||
  fail "the experiment ended with $?"
jq -e 'length == 4 and ([.[].runs] | all(. == 2)) and .[1].system == "faultline" and
  .[1].policy == "fifo" and .[1].medians.remote_misses == 90 and .[1].to_all_local.median > 0' \
  "$scratch/summary.json" >/dev/null || fail "bad summary: $(cat "$scratch/summary.json")"
expect "lines of results" 9 "$(wc -l <"$scratch/out/results.csv")"
expect "lines of the summary" 5 "$(wc -l <"$scratch/out/summary.csv")"
[[ $plots == --no-plots ]] || grep -q '</svg>' "$scratch/out/slowdown.svg" || fail "no plot"
fails experiment $plots
expect "the status of a folder that has results" 2 "$exit_status"
expect_match "the message" 'has results already: go on with them by --resume' "$message"
experiment $plots --resume >/dev/null 2>"$scratch/resume.log" || fail "--resume ended with $?"
[[ ! -s $scratch/resume.log ]] || fail "--resume has run: $(cat "$scratch/resume.log")"

sed -i 's/repetitions/repititions/' "$scratch/spec.toml"
fails experiment --dry-run
expect "the status of a bad spec" 2 "$exit_status"
expect_match "the message" 'spec.toml:2: repititions: unknown key' "$message"

# Kernel swap.
rm -r "$scratch/out"
write_spec true
swap_is_off() { ! grep -q "$swap_directory" /proc/swaps; }
if experiment $plots >"$scratch/summary.json" 2>"$scratch/experiment.log"; then
  jq -e '.[1].system == "swap" and .[1].runs == 2 and .[1].to_all_local.median > 1 and
    .[1].medians.major_faults > 100 and .[1].medians.fetched_pages > 100 and
    .[2].to_swap.median > 0' "$scratch/summary.json" >/dev/null ||
    fail "bad summary: $(cat "$scratch/summary.json")"
else
  expect_log experiment 'baseline of kernel swap cannot be had: .*; .*, or leave it out: baselines.swap = false'
  expect "results of an experiment that cannot be" 1 "$(wc -l <"$scratch/out/results.csv")"
  echo "kernel swap: $(cat "$scratch/experiment.log")"
fi
swap_is_off || fail "the swap file is still on"
expect "what is left in the folder of the swap file" "" "$(ls "$swap_directory")"
expect "control groups that are left" "$groups_before" "$(control_groups)"

# An unprivileged user is told so before anything is run.
if [[ $(id -u) -eq 0 ]]; then
  chmod 755 "$scratch"
  rm -r "$scratch/out"
  mkdir -m 777 "$scratch/out"
  chmod 777 "$swap_directory"
  fails "${UNPRIVILEGED[@]}" "$BIN/faultline" experiment "$scratch/spec.toml" --no-plots --directory="$scratch/out"
  expect_match "the message" 'cannot be had: swapon needs root; run the experiment as root' "$message"
fi
