#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The standard gRPC health and reflection services answer, as tools and orchestrators ask them.
. "$(dirname "$0")/functions.sh"
requires_command grpc_cli

start_server
services=$(grpc_cli ls "$server_address" 2>/dev/null)
for service in faultline.rpc.PageService faultline.rpc.AdminService grpc.health.v1.Health; do
  grep -qx "$service" <<<"$services" || fail "$service is not listed: $services"
done
expect_match "the health" 'status: SERVING' \
  "$(grpc_cli call "$server_address" grpc.health.v1.Health.Check '' 2>/dev/null)"
expect_match "a call by reflection" 'version' \
  "$(grpc_cli call "$server_address" faultline.rpc.AdminService.GetServerStatus '' 2>/dev/null)"
