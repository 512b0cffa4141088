#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The operator's guide is true to the programs: every message that it explains is one that a program
# has, every key of a configuration file is a flag, every metric is exported and every alert is a rule.
. "$(dirname "$0")/functions.sh"
requires_command perl

readonly SOURCE=$E2E_DIR/../.. GUIDE=$E2E_DIR/../operators-guide.md
cd "$SOURCE"

# Sources with their string literals joined, as the compiler does.
find client server storage proto \( -name '*.cc' -o -name '*.h' \) ! -name '*_test.cc' -print0 |
  xargs -0 perl -0pe 's/"\s*\n\s*"//g' >"$scratch/sources"
# The first column of the table, of which "..." and N stand for what differs.
perl -ne '$on = /Messages that ask/ if /^## /; print "$1\n" if $on && /^\| `(.+?)` \|/' "$GUIDE" >"$scratch/messages"
(($(wc -l <"$scratch/messages") >= 25)) || fail "the table of messages is not where it was"
while IFS= read -r message; do
  while IFS= read -r part; do
    grep -qF -e "$part" "$scratch/sources" || fail "no program says \"$part\", of \"$message\""
  done < <(perl -pe 's/\.\.\.|\bN\b/\n/g; s/^cannot start: /cannot start: \n/' <<<"$message" |
    sed -E 's/^[ ;:,]+//; s/[ ;:,]+$//' | grep -E '.{4}')
done <"$scratch/messages"
echo "$(wc -l <"$scratch/messages") messages are ones of the programs"

flags=$("$BIN/faultline-server" --help; "$BIN/faultline-agent" --help; "$BIN/faultline" volume import --help)
while IFS= read -r flag; do
  grep -qE -e "--$flag( |\$)" <<<"$flags" || fail "there is no flag --$flag"
done < <(grep -oE '`(--)?[a-z]+(-[a-z]+)* = ' "$GUIDE" | tr -d '`= ' | sort -u)
while IFS= read -r name; do
  grep -qE "faultline_(\{agent,attachment\}|agent|attachment|server)_${name#faultline_*_}" \
    deploy/prometheus/README.md || fail "no metric is called $name"
done < <(grep -oE 'faultline_(agent|attachment|server)_[a-z_]+' "$GUIDE" | sort -u)
while IFS= read -r alert; do
  grep -q "alert: $alert\$" deploy/prometheus/faultline-rules.yml || fail "no alert is called $alert"
done < <(grep -oE '\bFaultline[A-Z][A-Za-z]+' "$GUIDE" | sort -u)
for file in $(grep -oE '`(client|deploy)/[a-z_/.-]+`' "$GUIDE" | tr -d '`'); do
  [[ -e $file ]] || fail "there is no $file"
done
