# SPDX-License-Identifier: Apache-2.0
#
# Fills a redis-server, lets redis-benchmark write and read other keys of it, and prints a digest of
# all that it was filled with.
set -eu
# Debian's redis-server, without the service that its package starts: one program under two names.
program=$(command -v redis-check-rdb) || {
  echo "there is no redis-check-rdb: apt-get install redis-tools" >&2
  exit 1
}
directory=$(mktemp -d)
socket=$directory/redis.sock
ln -s "$program" "$directory/redis-server"
"$directory/redis-server" --port 0 --unixsocket "$socket" --dir "$directory" --save '' \
  --daemonize no >"$directory/log" &
server=$!
trap 'kill "$server" 2>/dev/null; wait "$server" || true; rm -r "$directory"' EXIT
until redis-cli -s "$socket" ping >/dev/null 2>&1; do
  kill -0 "$server" || { cat "$directory/log" >&2; exit 1; }
  sleep 0.05
done
awk 'BEGIN { for (i = 0; i < 80000; ++i) printf "SET kept:%d %d:%0990d\r\n", i, i, i * 7 }' |
  redis-cli -s "$socket" --pipe >/dev/null
redis-benchmark -s "$socket" -t set,get -n 100000 -r 80000 -d 1000 -c 8 -q >"$directory/benchmark"
[ "$(grep -c 'requests per second' "$directory/benchmark")" -eq 2 ]
awk 'BEGIN { for (i = 0; i < 80000; ++i) printf "GET kept:%d\n", i }' |
  redis-cli -s "$socket" | sha256sum
