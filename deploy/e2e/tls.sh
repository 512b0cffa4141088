#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# With certificates of deploy/make-certs: an agent pages memory over mutual TLS, volumes are their
# owners', who has none or another's certificate is refused, logged and counted, and new certificates
# are taken while all of it runs.
. "$(dirname "$0")/functions.sh"
requires_userfaultfd
requires_command openssl
requires_command jq
requires_command curl

certs=$scratch/certs
"$E2E_DIR/../make-certs" "$certs" agent1 alice bob root
"$E2E_DIR/../make-certs" "$scratch/strangers" alice
expect "modes of the keys" 600 "$(stat -c %a "$certs"/*.key | sort -u)"

# As NAME COMMAND...: faultline with that client's certificate.
as() {
  local name=$1
  shift
  faultline --tls-ca="$certs/ca.pem" --tls-cert="$certs/$name.pem" --tls-key="$certs/$name.key" "$@"
}

fails "$BIN/faultline-server" --listen=0.0.0.0:0 --store=memory:
expect_match "plaintext for other hosts" "will not listen on 0.0.0.0:0 without TLS" "$message"
start_server --tls-cert="$certs/server.pem" --tls-key="$certs/server.key" \
  --tls-client-ca="$certs/ca.pem" --admin=root --metrics=127.0.0.1:0
random_image "$scratch/image" 41 8
as alice volume import disk "$scratch/image"
expect "the owner" alice "$(as alice --output=json volume stat disk | jq -r .owner)"

echo "who is refused"
as bob volume create own --size=1MiB
expect "what bob is shown" own "$(as bob --output=json volume list | jq -r '.[].name')"
fails as bob volume stat disk
not_there=$message
fails as bob volume stat nisk
expect "what bob is told of a volume that is there" "${not_there//\"disk\"/\"nisk\"}" "$message"
expect_log server 'audit: identity=bob .*call=StatVolume volume="disk" outcome=refused'
fails faultline volume stat disk
expect_match "without TLS" "cannot reach the page server" "$message"
fails faultline --tls-ca="$certs/ca.pem" --tls-cert="$scratch/strangers/alice.pem" \
  --tls-key="$scratch/strangers/alice.key" volume stat disk
expect_match "with another authority's certificate" "cannot reach the page server" "$message"
openssl req -new -key "$certs/bob.key" -subj /CN=bob 2>/dev/null |
  openssl x509 -req -CA "$certs/ca.pem" -CAkey "$certs/ca.key" -set_serial 7 -days -1 \
    -out "$scratch/expired.pem" 2>/dev/null
fails faultline --tls-ca="$certs/ca.pem" --tls-cert="$scratch/expired.pem" \
  --tls-key="$certs/bob.key" volume stat own
expect_match "with one that has expired" "cannot reach the page server" "$message"
timeout "$PATIENCE" openssl s_client -ign_eof -connect "$server_address" -CAfile "$certs/ca.pem" \
  </dev/null &>"$scratch/nobody" || true
expect "what is sent to who shows none" "" "$(grep -a -e disk -e own "$scratch/nobody")"
failures() { grep -cE "call=connect outcome=refused: .*$1" "$scratch/server.log"; }
expect_log server 'call=connect outcome=refused: .*peer did not return a certificate'
expect_log server 'call=connect outcome=refused: .*wrong version number'
(($(failures 'certificate verify failed') >= 2)) ||
  fail "another's or an expired certificate is not in the log"
expect "refused calls" 2 "$(metric server faultline_server_calls_refused_total)"
metric_exceeds server faultline_server_handshakes_failed_total 3 ||
  fail "the refused connections are not counted"
[[ $(as root --output=json server status | jq '.calls_refused_total, .handshakes_failed_total') == \
  $'2\n'[1-9]* ]] || fail "the refusals are not counted: $(as root server status)"

fails env FAULTLINE_TLS_CA="$certs/ca.pem" "$BIN/faultline" vm offer --qmp="$scratch/qmp" --listen=127.0.0.1:0
expect_match "a move of a machine" 'speaks no TLS, .*nor FAULTLINE_TLS_' "$message"

echo "who is granted a role"
start_agent --tls-ca="$certs/ca.pem" --tls-cert="$certs/agent1.pem" --tls-key="$certs/agent1.key"
fails touch_with --volume=disk </dev/null
says toucher.log '^error .*there is no volume or snapshot "disk" that "agent1" may use' ||
  fail "the target is told: $(cat "$scratch/toucher.log")"
as alice volume grant disk agent1 reader
start_toucher target --volume=disk --reference="$scratch/image"
expect_out target '^mapped'
tell target 'check 0 1000'
expect_out target "^check $(all_right 1000)$"
fails as agent1 volume trim disk --offset=0 --length=4KiB
expect_match "what a reader is told" '"agent1" is its reader, .* takes a role of writer' "$message"

echo "who has a new certificate"
shown() {
  openssl s_client -connect "$server_address" -CAfile "$certs/ca.pem" -cert "$certs/bob.pem" \
    -key "$certs/bob.key" </dev/null 2>/dev/null | openssl x509 -noout -serial
}
serial() { openssl x509 -in "$certs/server.pem" -noout -serial; }
old=$(serial)
expect "the certificate that the server shows" "$old" "$(shown)"
rm "$certs"/{server,agent1,alice}.{pem,key}
"$E2E_DIR/../make-certs" "$certs" agent1 alice
[[ $(serial) != "$old" ]] || fail "the certificate was not made anew"
shows_the_new_one() { [[ $(shown) == "$(serial)" ]]; }
wait_for "the server to show its new certificate" shows_the_new_one
tell target 'check 1000 1048'
expect_out target "^check $(all_right 1048)$"

echo "who has a new certificate that is none"
bad() { metric_is server faultline_server_tls_files_good 0; }
good() { metric_is server faultline_server_tls_files_good 1; }
good || fail "good files are not counted as good"
mv "$certs/server.pem" "$scratch/server.pem"
echo "none" >"$certs/server.pem"
wait_for "the bad certificate to be counted" bad
expect_log server 'new TLS files are no good.*server.pem: holds no certificate in PEM form'
connections_fail() { ! as alice volume stat disk &>"$scratch/stat.out"; }
wait_for "connections to fail" connections_fail
mv "$scratch/server.pem" "$certs/server.pem"
wait_for "the good certificate to be counted" good
expect_log server 'the TLS files are good again'
expect "warnings" 1 "$(count_lines server.log 'new TLS files are no good')"
wait_for "the server to show it again" shows_the_new_one
as alice volume stat disk >"$scratch/stat.out"

echo "who is no reader any more"
as alice volume revoke disk agent1
fails touch_with --volume=disk </dev/null
expect_log server 'audit: identity=alice .*call=SetVolumeRole\(agent1,none\) volume="disk" outcome=ok'
