// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_LIB_OPEN_USERFAULTFD_H_
#define FAULTLINE_CLIENT_LIB_OPEN_USERFAULTFD_H_

#include "client/lib/failure.h"
#include "client/unique_fd.h"

namespace faultline {

// Opens a userfaultfd of this process, close-on-exec and non-blocking: from `device`, else by the
// system call. Not with UFFD_USER_MODE_ONLY, which anybody may have: a system call that
// meets a page not filled yet would fail with EFAULT, and programs do not expect that of their
// memory.
Failure OpenUserfaultfd(UniqueFd* uffd, const char* device = "/dev/userfaultfd");

// The same from `node`, an open /dev/userfaultfd: whoever has that may have a userfaultfd.
Failure OpenUserfaultfdFrom(int node, UniqueFd* uffd);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_LIB_OPEN_USERFAULTFD_H_
