#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Memory, descriptors and threads of a page server and of agents stay as they are, however long
# programs attach, churn, detach and are killed, volumes come and go, and whatever is at the other end
# is killed and started again. Rounds of all that at once; between them, when nobody is attached and
# the descriptors have settled, each process is looked at, so that what is left can only be a leak.
#
# Three processes run from the first round to the last, and are measured:
#   server   whose agents are killed in every round
#   agent    of that server: programs of all kinds of memory, far memory, forks, refusals
#   lonely   an agent whose own page server is killed in every round, while pages are on their way
#
#   FAULTLINE_SOAK_SECONDS    how long, 30 at least; 30
#   FAULTLINE_SOAK_DIRECTORY  where soak.csv (a look a second) and soak.svg are kept; nowhere
. "$(dirname "$0")/functions.sh"
requires_userfaultfd
for program in curl jq perl; do requires_command "$program"; done

readonly SOAK_SECONDS=${FAULTLINE_SOAK_SECONDS:-30} KEPT=${FAULTLINE_SOAK_DIRECTORY:-}
readonly LOAD_SECONDS=4 LEAST_ROUNDS=4
# Of each churn, whose threads share them; and of the race, of which a quarter is local.
readonly CHURN_PAGES=4096 RACE_PAGES=2048
readonly MEASURED=(server agent lonely)
csv=$scratch/soak.csv
[[ -z $KEPT ]] || requires_command gnuplot

# --- what is measured ----------------------------------------------------------------------------

# look WHEN: a line for each measured process; memory is in KiB.
look() {
  local name
  for name in "${MEASURED[@]}"; do
    awk -v when="$1" -v seconds=$((SECONDS - began)) -v round="$(<"$scratch/round")" -v name="$name" \
      -v descriptors="$(count_descriptors "$name")" '
      { value[$1] = $2 }
      END {
        print seconds, round, when, name, value["VmRSS:"], value["RssAnon:"], descriptors,
          value["Threads:"]
      }' OFS=, "/proc/${pid[$name]}/status" >>"$csv"
  done
}
count_descriptors() { ls "/proc/${pid[$1]}/fd" | wc -l; }
look_each_second() { while sleep 1; do look load; done; }

# in_use: descriptors and threads of all that is measured.
in_use() {
  local name
  for name in "${MEASURED[@]}"; do
    echo "$name $(count_descriptors "$name") $(grep Threads "/proc/${pid[$name]}/status")"
  done
}
# Connections end a moment after the processes that had them.
settled() {
  local before
  before=$(in_use)
  sleep 1
  [[ $before == "$(in_use)" ]]
}

# --- the programs --------------------------------------------------------------------------------

listens() {
  says "$1.log" 'listening on ' && return
  if has_exited "$1"; then fail "$1 has ended"; fi
  return 1
}
# start_page_server NAME ADDRESS FLAGS...
start_page_server() {
  local name=$1 address=$2
  rm -f "$scratch/$name.log"
  # Little memory for the store, so that it is full long before the end.
  spawn "$name" "$BIN/faultline-server" --listen="$address" --store="rocksdb:$scratch/$name.store" \
    --store-memory=32MiB "${@:3}"
  wait_for "$name to listen" listens "$name"
}
# start_an_agent NAME ADDRESS FLAGS...: at $scratch/NAME.sock.
start_an_agent() {
  spawn "$1" "$BIN/faultline-agent" --server="$2" --socket="$scratch/$1.sock" --fault-policy=wait \
    --handover-timeout="${PATIENCE}s" "${@:3}"
  wait_for "the socket of $1" answers "$1"
}
answers() { "$BIN/faultline" attachments --socket="$scratch/$1.sock" >/dev/null 2>&1; }

# churns NAME AGENT FLAGS...
churns() {
  spawn "$1" "$BIN/faultline-churn" --socket="$scratch/$2.sock" --threads=2 --pages=$CHURN_PAGES \
    --seconds=$LOAD_SECONDS --generation-ops=400 --hang-after=$((2 * PATIENCE)) "${@:3}"
}
# ended NAME: it has, and everything was right.
ended() {
  wait_for_exit "$1"
  expect "exit status of $1" 0 "$exit_status"
}
killed() {
  kill -KILL "${pid[$1]}"
  wait_for_exit "$1"
}

# volume COMMAND...: until it has succeeded, where a machine that stood still has cut it off.
volume() { wait_for "faultline volume $*" volume_done "$@"; }
volume_done() {
  message=$(faultline volume "$@" 2>&1 >/dev/null) || [[ $message =~ already|there\ is\ no ]]
}
# The whole life of some volumes.
volumes_come_and_go() {
  local name=volume.$1
  for command in "import $name $scratch/image" "snapshot $name $name.before" \
    "trim $name --offset=0 --length=256KiB" "clone $name.before $name.copy" \
    "export $name.copy $scratch/exported --force" "create $name.empty --size=1GiB" \
    "delete $name.empty" "delete $name.copy" "delete $name" "delete $name.before"; do
    volume $command
  done
}
# Clients that only ask, some of them for what there is not.
clients_ask() {
  local name refused=0
  for ((i = 0; i < LOAD_SECONDS; ++i)); do
    volume list
    if faultline volume stat none 2>/dev/null; then fail "there is a volume none"; fi
    wait_for "the attachments" answers agent
    for name in "${MEASURED[@]}"; do scrape "$name" >/dev/null; done
    curl -sSf "$(sed -nE 's/.* page at (http[^,]*),.*/\1/p' "$scratch/agent.log")api/agent" >/dev/null
    touch_with --volume=none </dev/null || refused=$((refused + 1))
    echo '[{"base_host_virt_addr": 1}]' | perl -MIO::Socket::UNIX -e '
      my $agent = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die; print $agent <STDIN>;' \
      "$scratch/lonely.sock"
  done
  expect "attachments to a volume that is not there" $LOAD_SECONDS $refused
}
# A program that ends as it should, and one that is killed while it waits for pages.
programs_attach() {
  local memory
  for memory in anon memfd; do
    expect_match "what a program reads" "check $(all_right "$IMAGE_PAGES")" \
      "$(echo check | touch_with --volume=image --reference="$scratch/image" --memory=$memory --threads=2)"
    (echo check | timeout --signal=KILL 0.2 "$BIN/toucher" --socket="$agent_socket" --volume=image \
      --reference="$scratch/image" --memory=$memory || true) >/dev/null 2>&1
  done
}

round() {
  echo "$1" >"$scratch/round"
  volumes_come_and_go "$1" & pid[volumes]=$!
  clients_ask & pid[clients]=$!
  programs_attach & pid[programs]=$!
  churns churn agent --memory=anon
  churns killed agent --memory=memfd
  spawn race "$BIN/increment_race" $LOAD_SECONDS $RACE_PAGES "$agent_socket" "race.$1" \
    $((RACE_PAGES / 4)) s3-fifo
  # Without forks: README.md has what may happen to forked children whose events wait for a server.
  churns waiting lonely --memory=shmem --no-fork
  churns adopted mortal --no-fork --agent-may-die
  sleep 1
  killed killed
  killed broken
  killed mortal
  start_page_server broken "$broken_address"
  start_an_agent mortal "$server_address"
  for name in volumes clients programs churn race waiting adopted; do ended "$name"; done
  volume delete "race.$1"
  for name in agent lonely mortal; do
    agent_socket=$scratch/$name.sock wait_for "all of $name to have detached" attached_is length 0
  done
  wait_for "descriptors and threads to settle" settled
  look quiet
}

# --- what comes of it ----------------------------------------------------------------------------

# Prints how each measure went over the quiet moments but those of the first third, in which buffers,
# caches and pools fill; fails where one has grown. Growth is the median of the slopes of all pairs of
# moments (Theil and Sen) over that time, scatter the median distance from that line.
judge() {
  perl -e '
    my ($csv) = @ARGV;
    # With fewer moments what is still filling cannot be told from a leak: then a bound has to do.
    my ($least_points, $most_kib) = (30, 131072);
    my (%series, @names, $failed);
    sub median { my @sorted = sort { $a <=> $b } @_; return $sorted[$#sorted / 2]; }
    open(my $file, "<", $csv) or die "$csv: $!";
    while (<$file>) {
      chomp;
      my ($seconds, $round, $when, $name, $rss, $anon, $descriptors, $threads) = split /,/;
      next if $when ne "quiet";
      push @names, $name if !$series{$name};
      push @{$series{$name}}, [$seconds, $anon, $descriptors, $threads];
    }
    for my $name (@names) {
      my @all = @{$series{$name}};
      my @points = @all[int(@all / 3) .. $#all];
      my $time = $points[-1][0] - $points[0][0];
      for my $measure (["anonymous memory, KiB", 1], ["descriptors", 2], ["threads", 3]) {
        my ($what, $column) = @$measure;
        my @slopes;
        for my $i (0 .. $#points) {
          for my $j ($i + 1 .. $#points) {
            push @slopes, ($points[$j][$column] - $points[$i][$column]) / ($points[$j][0] - $points[$i][0]);
          }
        }
        my $slope = median(@slopes);
        my $level = median(map { $_->[$column] - $slope * $_->[0] } @points);
        my $scatter = median(map { abs($_->[$column] - $level - $slope * $_->[0]) } @points);
        my $growth = $slope * $time;
        my ($first, $last) = ($points[0][$column], $points[-1][$column]);
        # Pools, and the files of the store, are some more at one moment than at another.
        my $allowed = $column == 1 ? 4096 + 0.02 * $first : 3;
        my $verdict = $growth <= $allowed ? "flat" : "GROWS";
        if ($column == 1 && @points < $least_points) {
          $verdict = $last <= $most_kib ? "not too much" : "TOO MUCH";
        }
        $failed = 1 if $verdict =~ /[A-Z]/;
        printf "%-7s %-22s %7d at first, %7d at last, growth %+.0f in %d s, scatter %.0f: %s\n",
          $name, $what, $first, $last, $growth, $time, $scatter, $verdict;
      }
    }
    exit($failed ? 1 : 0);' "$csv"
}

# Thick: when nobody is attached; thin: every look in between that is drawn, of which there are some
# hundred.
draw() {
  local thin=$((1 + SOAK_SECONDS / 60))
  gnuplot <<PLOT
set terminal svg size 900,900 noenhanced
set output '$KEPT/soak.svg'
set datafile separator ','
set multiplot layout 3,1 title "$rounds rounds of churn, attach, detach, kill and restart"
set grid
set key outside right
set xlabel 'minutes'
at(when, name) = "< grep ',".when.",".name.",' $csv"
measure(n) = n == 6 ? column(6) / 1024.0 : column(n)
set yrange [0:*]
do for [n=6:8] {
  set ylabel word('MiB-of-anonymous-memory descriptors threads', n - 5)
  plot for [i=1:3] at('load', word("${MEASURED[*]}", i)) every $thin \
         using (\$1 / 60.0):(measure(n)) with lines linewidth 0.4 linetype i notitle, \
       for [i=1:3] at('quiet', word("${MEASURED[*]}", i)) \
         using (\$1 / 60.0):(measure(n)) with lines linewidth 2 linetype i title word("${MEASURED[*]}", i)
}
unset multiplot
PLOT
}

began=$SECONDS
echo 0 >"$scratch/round"
random_image "$scratch/image" 301 4
readonly IMAGE_PAGES=1024
"$BIN/faultline-churn" --write-image="$scratch/pattern" --threads=2 --pages=$CHURN_PAGES
start_page_server server 127.0.0.1:0 --metrics=127.0.0.1:0
start_page_server broken 127.0.0.1:0
address_of() { sed -nE 's/.*listening on ([^,;]+)[,;].*/\1/p' "$scratch/$1.log"; }
broken_address=$(address_of broken)
server_address=$broken_address faultline volume import churn "$scratch/pattern"
server_address=$(address_of server)
faultline volume import churn "$scratch/pattern"
faultline volume import image "$scratch/image"
start_an_agent agent "$server_address" --metrics=127.0.0.1:0 --prefetch=streams --working-set=both
start_an_agent lonely "$broken_address" --metrics=127.0.0.1:0
start_an_agent mortal "$server_address"
look_each_second & pid[looks]=$!

rounds=0
until ((SECONDS - began >= SOAK_SECONDS && rounds >= LEAST_ROUNDS)); do
  rounds=$((rounds + 1))
  round $rounds
done
kill "${pid[looks]}"
wait_for_exit looks
echo "$rounds rounds in $((SECONDS - began)) s;" \
  "attachments: agent $(metric agent faultline_agent_attachments_total)," \
  "lonely $(metric lonely faultline_agent_attachments_total)"
if [[ -n $KEPT ]]; then
  mkdir -p "$KEPT"
  { echo "seconds,round,when,process,rss_kib,anonymous_kib,descriptors,threads"; cat "$csv"; } >"$KEPT/soak.csv"
  draw
fi
judge || fail "something grows; FAULTLINE_SOAK_DIRECTORY=DIR keeps the numbers"
