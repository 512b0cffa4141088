# SPDX-License-Identifier: Apache-2.0
#
# What old_kernel_churn.sh and new_kernel_churn.sh share; sourced after vm.sh.

# Of each of the two churns; more for a long search, then with FAULTLINE_VM_CHURN_SECONDS=3600.
readonly CHURN_SECONDS=${FAULTLINE_VM_CHURN_SECONDS:-10}
readonly CHURN_MEMORY=${FAULTLINE_VM_CHURN_MEMORY:-anon}
readonly CHURN_SEED=${FAULTLINE_VM_CHURN_SEED:-1}

# churns_right KERNEL MODE: churns over pages of a server, then over pages that cost nothing to get,
# are without a wrong byte or a hang, and the agent has found out by itself that it is to fill in
# this mode.
churns_right() {
  local kernel=$1 mode=$2
  requires_vm "$kernel"
  requires_command jq
  echo "seed $CHURN_SEED (FAULTLINE_VM_CHURN_SEED), twice $CHURN_SECONDS s of $CHURN_MEMORY memory"
  # An operation of an emulated processor takes its time: it hangs after 40 s.
  # shellcheck disable=SC2016  # for the shell in the machine
  in_vm "$kernel" --timeout $((2 * CHURN_SECONDS + 150)) -- sh -uc '
    uname -r >&2
    mkdir server memory
    failed=0
    for source in server memory; do
      faultline --output=json churn --source=$source --directory=$source --pages=4096 --threads=4 \
        --fill-mode=auto --hang-after=40 "$@" >$source.json 2>$source.log &
      churn=$!
      # The log of the agent, which a churn over a server has for itself, is gone when that ends.
      if [ $source = server ]; then
        until grep -hs "fill mode" server/*/agent.log >&2; do
          kill -0 $churn || break
          sleep 0.1
        done
      fi
      wait $churn || { echo "churn --source=$source ended with $?" >&2; failed=1; }
      tail -n 20 $source.log >&2
    done
    cat server.json memory.json
    exit $failed' sh --seconds="$CHURN_SECONDS" --memory="$CHURN_MEMORY" --seed="$CHURN_SEED"
  sed -n 's/.*\(fill mode .*\)/\1/p' "$scratch/vm.log"
  jq -r '"\(.configuration): operations \(.target.operations_total), pages checked " +
    "\(.target.checked_pages_total), worst \(.target.worst_us) us, fills refused for an unread " +
    "event \(.agent.fill_eagain_total)"' "$scratch/vm.out"
  expect "the status of the churns in the virtual machine" 0 "$exit_status"
  expect_match "the kernel" "^${kernel/./\\.}\\." "$(grep -m 1 '^[0-9]' "$scratch/vm.log")"
  expect_log vm "fill mode $mode: "
  expect "wrong bytes and hangs of both churns" "0 0 0 0" \
    "$(jq -r '.target | .wrong_bytes_total, .hangs_total' "$scratch/vm.out" | xargs)"
  jq -es 'length == 2 and all(.[].target; .operations_total > 20 and .checked_pages_total > 100)' \
    "$scratch/vm.out" >/dev/null || fail "the churns have done and checked next to nothing"
}
