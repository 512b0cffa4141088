// SPDX-License-Identifier: Apache-2.0
//
// What a daemon and the service manager that has started it (systemd) tell each other. Without one,
// all of it does nothing. For main.cc files.
#ifndef FAULTLINE_PROTO_SERVICE_MANAGER_H_
#define FAULTLINE_PROTO_SERVICE_MANAGER_H_

#include <absl/strings/string_view.h>

#include <vector>

namespace faultline {

// Sends `state`, such as "READY=1" or "STOPPING=1" (sd_notify(3)), to the socket that NOTIFY_SOCKET
// names. A message that cannot be sent is logged. Thread-safe, as long as nobody changes the
// environment.
void NotifyServiceManager(absl::string_view state);

// The sockets that the service manager has opened for this process (LISTEN_FDS, sd_listen_fds(3)),
// close-on-exec; the caller owns them. Once: the variables are taken out of the environment, so
// call it before any thread is started.
std::vector<int> TakePassedSockets();

}  // namespace faultline

#endif  // FAULTLINE_PROTO_SERVICE_MANAGER_H_
