// SPDX-License-Identifier: Apache-2.0
//
// An authority that makes certificates for one's own use, with keys that lie beside them: for tests
// and benchmarks. For anything else there is deploy/make-certs.
#ifndef FAULTLINE_PROTO_CERTIFICATE_AUTHORITY_H_
#define FAULTLINE_PROTO_CERTIFICATE_AUTHORITY_H_

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>
#include <absl/time/time.h>

#include <memory>
#include <string>

#include "proto/tls_files.h"

namespace faultline {

// Not thread-safe.
class CertificateAuthority {
 public:
  // Writes its own certificate to `ca_file`.
  static absl::StatusOr<std::unique_ptr<CertificateAuthority>> Create(const std::string& ca_file);
  virtual ~CertificateAuthority() = default;

  // Makes a certificate for `common_name`, for both ends of connections to this host, which is over
  // at `expires`. It and its key replace PATH.pem and PATH.key; `ca` of the result is this
  // authority's certificate.
  virtual absl::StatusOr<TlsFiles> Issue(absl::string_view common_name, const std::string& path,
                                         absl::Time expires) = 0;
};

}  // namespace faultline

#endif  // FAULTLINE_PROTO_CERTIFICATE_AUTHORITY_H_
