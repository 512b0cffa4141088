// SPDX-License-Identifier: Apache-2.0
//
// The PEM files that one end of a mutual TLS connection has. They are read again while the program
// runs, so new ones may be put in their place; see kTlsReloadSeconds.
#ifndef FAULTLINE_PROTO_TLS_FILES_H_
#define FAULTLINE_PROTO_TLS_FILES_H_

#include <absl/status/status.h>

#include <string>

namespace faultline {

// How often files are looked at. A connection that was made goes on with what it began with.
inline constexpr unsigned kTlsReloadSeconds = 5;

struct TlsFiles {
  std::string ca;           // of those that the other end's certificate is to be from
  std::string certificate;  // with the chain to the other end's authority, leaf first
  std::string key;          // of the certificate, not encrypted
  unsigned reload_seconds = kTlsReloadSeconds;

  bool any() const { return !ca.empty() || !certificate.empty() || !key.empty(); }
};

// INVALID_ARGUMENT, naming the file and what to do, unless none is given or all are, can be read,
// hold what they should, and key and certificate belong together. A certificate that has expired is
// no error, but is logged: it may be replaced.
absl::Status CheckTlsFiles(const TlsFiles& files);

}  // namespace faultline

#endif  // FAULTLINE_PROTO_TLS_FILES_H_
