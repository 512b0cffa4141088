// SPDX-License-Identifier: Apache-2.0
#include "proto/certificate_authority.h"

#include <absl/strings/str_cat.h>
#include <absl/time/clock.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <unistd.h>

#include <cstdio>
#include <functional>
#include <utility>

namespace faultline {
namespace {

using Certificate = std::unique_ptr<X509, decltype(&X509_free)>;
using Key = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;

// The certificate of an authority is good for longer than any that it makes.
constexpr absl::Duration kAuthorityLasts = absl::Hours(24 * 3650);
constexpr absl::Duration kBeganBefore = absl::Hours(24 * 30);

absl::Status OpenSslError(absl::string_view what) {
  char text[256];
  ERR_error_string_n(ERR_get_error(), text, sizeof text);
  return absl::InternalError(absl::StrCat("cannot ", what, ": ", text));
}

// Whole files only: a reader sees the old one or the new one.
absl::Status ReplaceFile(const std::string& path, const std::function<bool(FILE*)>& write) {
  const std::string next = path + ".new";
  const int fd = open(next.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  FILE* const file = fd < 0 ? nullptr : fdopen(fd, "w");
  bool written = file != nullptr && write(file);
  if (file != nullptr) written = fclose(file) == 0 && written;
  if (written && rename(next.c_str(), path.c_str()) == 0) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("cannot write ", path, ": ", strerror(errno)));
}

bool AddExtension(X509* certificate, X509* issuer, int nid, const char* value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  X509_EXTENSION* const extension = X509V3_EXT_conf_nid(nullptr, &context, nid, value);
  const bool added = extension != nullptr && X509_add_ext(certificate, extension, -1) == 1;
  X509_EXTENSION_free(extension);
  return added;
}

// `issuer` null: signed by itself.
absl::StatusOr<Certificate> MakeCertificate(absl::string_view common_name, EVP_PKEY* key,
                                            X509* issuer, EVP_PKEY* issuer_key,
                                            absl::Time expires) {
  Certificate certificate(X509_new(), &X509_free);
  X509* const x509 = certificate.get();
  X509* const by = issuer == nullptr ? x509 : issuer;
  uint64_t serial = 0;
  X509_NAME* const subject = X509_get_subject_name(x509);
  const auto* const name = reinterpret_cast<const unsigned char*>(common_name.data());
  bool made =
      RAND_bytes(reinterpret_cast<unsigned char*>(&serial), sizeof serial) == 1 &&
      X509_set_version(x509, X509_VERSION_3) == 1 &&
      ASN1_INTEGER_set_uint64(X509_get_serialNumber(x509), serial >> 1) == 1 &&
      X509_set_pubkey(x509, key) == 1 &&
      X509_NAME_add_entry_by_NID(subject, NID_commonName, MBSTRING_UTF8, name,
                                 static_cast<int>(common_name.size()), -1, 0) == 1 &&
      X509_set_issuer_name(x509, X509_get_subject_name(by)) == 1 &&
      ASN1_TIME_set(X509_getm_notBefore(x509),
                    absl::ToTimeT(std::min(absl::Now(), expires) - kBeganBefore)) != nullptr &&
      ASN1_TIME_set(X509_getm_notAfter(x509), absl::ToTimeT(expires)) != nullptr;
  if (issuer == nullptr) {
    made = made && AddExtension(x509, by, NID_basic_constraints, "critical,CA:TRUE") &&
           AddExtension(x509, by, NID_key_usage, "critical,keyCertSign,cRLSign");
  } else {
    made = made && AddExtension(x509, by, NID_basic_constraints, "critical,CA:FALSE") &&
           AddExtension(x509, by, NID_ext_key_usage, "serverAuth,clientAuth") &&
           AddExtension(x509, by, NID_subject_alt_name, "DNS:localhost,IP:127.0.0.1,IP:::1");
  }
  if (!made || X509_sign(x509, issuer_key, EVP_sha256()) == 0) {
    return OpenSslError("make a certificate");
  }
  return certificate;
}

absl::StatusOr<Key> MakeKey() {
  Key key(EVP_EC_gen("P-256"), &EVP_PKEY_free);
  if (key == nullptr) return OpenSslError("make a key");
  return key;
}

class OpenSslAuthority final : public CertificateAuthority {
 public:
  OpenSslAuthority(std::string file, Key key, Certificate certificate)
      : file_(std::move(file)), key_(std::move(key)), certificate_(std::move(certificate)) {}

  absl::StatusOr<TlsFiles> Issue(absl::string_view common_name, const std::string& path,
                                 absl::Time expires) override {
    const absl::StatusOr<Key> key = MakeKey();
    if (!key.ok()) return key.status();
    const absl::StatusOr<Certificate> certificate =
        MakeCertificate(common_name, key->get(), certificate_.get(), key_.get(), expires);
    if (!certificate.ok()) return certificate.status();
    TlsFiles files;
    files.ca = file_;
    files.certificate = path + ".pem";
    files.key = path + ".key";
    absl::Status status = ReplaceFile(files.key, [&key](FILE* file) {
      return PEM_write_PrivateKey(file, key->get(), nullptr, nullptr, 0, nullptr, nullptr) == 1;
    });
    if (status.ok()) {
      status = ReplaceFile(files.certificate, [&certificate](FILE* file) {
        return PEM_write_X509(file, certificate->get()) == 1;
      });
    }
    if (!status.ok()) return status;
    return files;
  }

 private:
  const std::string file_;
  const Key key_;
  const Certificate certificate_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<CertificateAuthority>> CertificateAuthority::Create(
    const std::string& ca_file) {
  absl::StatusOr<Key> key = MakeKey();
  if (!key.ok()) return key.status();
  absl::StatusOr<Certificate> certificate = MakeCertificate(
      "faultline test authority", key->get(), nullptr, key->get(), absl::Now() + kAuthorityLasts);
  if (!certificate.ok()) return certificate.status();
  absl::Status status = ReplaceFile(ca_file, [&certificate](FILE* file) {
    return PEM_write_X509(file, certificate->get()) == 1;
  });
  if (!status.ok()) return status;
  return std::make_unique<OpenSslAuthority>(ca_file, *std::move(key), *std::move(certificate));
}

}  // namespace faultline
