// SPDX-License-Identifier: Apache-2.0
//
// Several page servers that have the same volumes, behind one PageServer.
//
//   server_list        which servers there are; names are looked up again and again
//   peer               one of them, with the connection to it
//   fetch_races        sends each fetch to one, or more
//   roaming_writer     writes at one, and moves to another
//   several_servers.cc opens volumes; its thread looks after the peers' state
//
// A volume that is read is opened at one server, then, behind that, at all others that have the
// same one (OpenVolumeResponse.identity). gRPC balances streams, of which there are few and which
// last; so each server has connections of its own here, and what is balanced are the fetches.
// Whether a server is there and serves is gRPC's to say: its keepalive, its reconnecting, and its
// health checking (grpc.health.v1) on the connection of the bulk lane.
//
// A volume that is written to is read at its writer's server only: others may not have seen its
// last writes.
#ifndef FAULTLINE_CLIENT_REMOTE_SEVERAL_SERVERS_H_
#define FAULTLINE_CLIENT_REMOTE_SEVERAL_SERVERS_H_

#include <memory>
#include <vector>

#include "client/remote/page_server.h"
#include "client/remote/server_list.h"

namespace faultline {

// Of `options`, not the address.
std::unique_ptr<PageServer> NewSeveralServers(std::vector<ServerEntry> servers,
                                              const PageServerOptions& options);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_REMOTE_SEVERAL_SERVERS_H_
