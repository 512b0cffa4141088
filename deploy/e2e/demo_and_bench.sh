#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The demo ends well for any file, leaves nothing behind, and fails where the file cannot be read.
# The benchmarks print figures that a program can read.
. "$(dirname "$0")/functions.sh"
requires_userfaultfd
requires_command jq

# For page servers of the user's own, of which those that are started here are none.
for variable in FAULTLINE_TLS_{CA,CERT,KEY} FAULTLINE_AGENT_TLS_{CA,CERT,KEY} FAULTLINE_SERVER_TLS_{CERT,KEY,CLIENT_CA}; do
  export $variable="$scratch/none.pem"
done

# Not a whole number of pages.
head -c 5000001 /dev/urandom >"$scratch/input"
mkdir "$scratch/dir"
for memory in private memfd; do
  output=$("$BIN/faultline" demo --input="$scratch/input" --memory=$memory --directory="$scratch/dir")
  digest=$(sha256sum "$scratch/input" | cut -d' ' -f1)
  expect_match "the demo" "through faults +$digest" "$output"
  expect_match "the demo" "faults +1221 " "$output"
  expect_match "the demo" "The digests are the same" "$output"
done
fails "$BIN/faultline" demo --input="$scratch/missing" --directory="$scratch/dir"
expect_match "the message" "missing" "$message"

"$BIN/faultline" --output=json bench fault-random --pages=300 --repetitions=1 \
  --directory="$scratch/dir" >"$scratch/faults.json"
"$BIN/faultline" --output=json bench import --size=4MiB --repetitions=1 --transport=unix \
  --directory="$scratch/dir" >"$scratch/import.json"
for figures in faults import; do
  jq -e '[.figures[] | .faultline.median, .floor.median, .ratio.median | . > 0] | all' \
    "$scratch/$figures.json" >/dev/null || fail "bad figures: $(cat "$scratch/$figures.json")"
done
[[ -z $(ls -A "$scratch/dir") ]] || fail "left behind: $(ls -A "$scratch/dir")"
