// SPDX-License-Identifier: Apache-2.0
//
// How a client proves who it is to a page server, and knows the server.
#ifndef FAULTLINE_CLIENT_REMOTE_SERVER_TLS_H_
#define FAULTLINE_CLIENT_REMOTE_SERVER_TLS_H_

#include <string>
#include <vector>

#include "proto/tls_files.h"

namespace faultline {

// Nothing given: plaintext. Used for host:port only, as a server speaks no TLS on a Unix socket.
struct ServerTls {
  TlsFiles files;  // the certificate's common name is who the client is
  // What the server's certificate must be of; empty: the host that is connected to.
  std::string server_name;
};

// The same as flags of faultline and faultline-agent.
std::vector<std::string> FlagsOf(const ServerTls& tls);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_REMOTE_SERVER_TLS_H_
