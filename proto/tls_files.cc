// SPDX-License-Identifier: Apache-2.0
#include "proto/tls_files.h"

#include <absl/status/statusor.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/string_view.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <string.h>

#include <cstdio>
#include <memory>

#include "proto/log.h"

namespace faultline {
namespace {

using File = std::unique_ptr<FILE, decltype(&fclose)>;
using Certificate = std::unique_ptr<X509, decltype(&X509_free)>;
using Key = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;

absl::Status Wrong(absl::string_view path, absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat(
      "TLS: ", path, ": ", why,
      "; files for it are made by make-certs (deploy/, or /usr/share/faultline-server), for one"));
}

absl::StatusOr<File> OpenFile(const std::string& path) {
  File file(fopen(path.c_str(), "re"), &fclose);
  if (file == nullptr) return Wrong(path, strerror(errno));
  return file;
}

absl::StatusOr<Certificate> ReadCertificate(const std::string& path) {
  absl::StatusOr<File> file = OpenFile(path);
  if (!file.ok()) return file.status();
  Certificate certificate(PEM_read_X509(file->get(), nullptr, nullptr, nullptr), &X509_free);
  ERR_clear_error();
  if (certificate == nullptr) return Wrong(path, "holds no certificate in PEM form");
  return certificate;
}

absl::StatusOr<Key> ReadKey(const std::string& path) {
  absl::StatusOr<File> file = OpenFile(path);
  if (!file.ok()) return file.status();
  // With an empty password, so that nobody is asked for one.
  char no_password[] = "";
  Key key(PEM_read_PrivateKey(file->get(), nullptr, nullptr, no_password), &EVP_PKEY_free);
  ERR_clear_error();
  if (key == nullptr) return Wrong(path, "holds no private key in PEM form, not encrypted");
  return key;
}

}  // namespace

absl::Status CheckTlsFiles(const TlsFiles& files) {
  if (!files.any()) return absl::OkStatus();
  if (files.ca.empty() || files.certificate.empty() || files.key.empty()) {
    return absl::InvalidArgumentError(
        "TLS needs all of a certificate, its key and the authority of the other end; give all "
        "three files, or none");
  }
  if (absl::Status status = ReadCertificate(files.ca).status(); !status.ok()) return status;
  const absl::StatusOr<Certificate> certificate = ReadCertificate(files.certificate);
  if (!certificate.ok()) return certificate.status();
  const absl::StatusOr<Key> key = ReadKey(files.key);
  if (!key.ok()) return key.status();
  const bool belong_together = X509_check_private_key(certificate->get(), key->get()) == 1;
  ERR_clear_error();
  if (!belong_together) {
    return Wrong(files.key, absl::StrCat("is not the key of ", files.certificate));
  }
  if (X509_cmp_current_time(X509_get0_notAfter(certificate->get())) <= 0) {
    LogWarning(absl::StrCat("the certificate in ", files.certificate,
                            " has expired, so nobody will accept it; replace it"));
  }
  return absl::OkStatus();
}

}  // namespace faultline
