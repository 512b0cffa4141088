#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# On Linux 6.12 fills and events exclude each other: the agent finds that out, fills from several
# threads, and no byte is wrong under churn.
. "$(dirname "$0")/functions.sh"
. "$E2E_DIR/kernel/vm.sh"
. "$E2E_DIR/kernel/churn.sh"
churns_right 6.12 parallel
