#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# On Debian 12's own Linux 6.1 a fill can land beside an event that is raised while it runs: the agent
# finds that out, serves each attachment with one thread, and no byte is wrong under churn.
. "$(dirname "$0")/functions.sh"
. "$E2E_DIR/kernel/vm.sh"
. "$E2E_DIR/kernel/churn.sh"
churns_right 6.1 serial
