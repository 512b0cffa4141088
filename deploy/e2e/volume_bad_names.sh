#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Names that are none, and sizes that are none, are refused with what is allowed; nothing is made.
. "$(dirname "$0")/functions.sh"

start_server
long=$(printf 'x%.0s' {1..129})
for name in "" . .. .hidden "a b" ../x a/b -x "$long" $'a\nb' 'ä' 'a*'; do
  fails faultline volume create --size=1MiB -- "$name"
  expect "exit status of \"$name\"" 2 "$exit_status"
  expect_match "the message for \"$name\"" \
    'cannot be the name of a volume; allowed are 1 to 128 letters, digits' "$message"
done
expect "the volumes" 1 "$(faultline volume list | wc -l)"
# What is no UTF-8 does not even reach the check.
fails faultline volume create --size=1MiB -- $'\xff'
expect "the volumes" 1 "$(faultline volume list | wc -l)"

for size in 0 -1 1X 99999999999999999999 16EiB; do
  fails faultline volume create vm --size="$size"
  expect "exit status of size $size" 2 "$exit_status"
done
for name in "${long%x}" 0 a.b_c-D9; do faultline volume create "$name" --size=1MiB; done
expect "the volumes" 4 "$(faultline volume list | wc -l)"
fails faultline volume create 0 --size=1MiB
expect_match "the message for a name that is taken" 'there already is a volume or snapshot "0"' "$message"
