// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_LIB_OPEN_USERFAULTFD_H_
#define FAULTLINE_CLIENT_LIB_OPEN_USERFAULTFD_H_

#include "client/lib/failure.h"
#include "client/unique_fd.h"

namespace faultline {

// Opens a userfaultfd of this process, close-on-exec and non-blocking, by the way with the fewest
// limits that is open to it: /dev/userfaultfd, the system call, or the system call without faults
// of the kernel (then a system call that meets a page not filled yet fails with EFAULT).
Failure OpenUserfaultfd(UniqueFd* uffd);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_LIB_OPEN_USERFAULTFD_H_
