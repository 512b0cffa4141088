# SPDX-License-Identifier: Apache-2.0
#
# What the tests in a virtual machine share; sourced after functions.sh.

# requires_vm KERNEL
requires_vm() {
  local reason status=0
  reason=$("$E2E_DIR/kernel/run-in-vm" --kernel "$1" --check 2>&1) || status=$?
  ((status != 77)) || skip "$reason"
  ((status == 0)) || fail "run-in-vm --check ended with $status: $reason"
}

# bare_vm KERNEL FLAGS... -- COMMAND...: stdout in $scratch/vm.out, stderr in $scratch/vm.log. Sets
# $exit_status.
bare_vm() {
  exit_status=0
  "$E2E_DIR/kernel/run-in-vm" --kernel "$@" >"$scratch/vm.out" 2>"$scratch/vm.log" || exit_status=$?
}

# in_vm KERNEL FLAGS... -- COMMAND...: the same with Faultline's programs.
in_vm() {
  local kernel=$1 program programs=()
  shift
  for program in "$BIN"/faultline{,-agent,-server,-touch,-churn}; do
    [[ ! -x $program ]] || programs+=(--file "$program")
  done
  bare_vm "$kernel" "${programs[@]}" "$@"
}
