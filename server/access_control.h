// SPDX-License-Identifier: Apache-2.0
//
// AccessControl: who calls, what they may do with which volume, and what is written down of it.
//
// Who calls: over TLS, the common name of the client's certificate, which gRPC has verified;
// through a Unix socket, kLocalIdentity. A certificate with no common name, or one that
// CheckIdentity() refuses or that begins with '@', is of nobody, who may do nothing.
//
// What they may do: roles are kept with each volume, see storage/volume_access.h; whoever makes a
// volume owns it. Administrators may do everything. On a server without TLS there are no
// identities, and everybody may do everything.
//
// Nothing of a volume is told to those who may not read it: they get the same answer, word for
// word, whether it is there or not. Only that a name is taken can be found out, by making a volume
// of it.
#ifndef FAULTLINE_SERVER_ACCESS_CONTROL_H_
#define FAULTLINE_SERVER_ACCESS_CONTROL_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>
#include <absl/time/time.h>
#include <grpcpp/server_context.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "proto/mutex.h"
#include "server/client_account.h"
#include "server/counters.h"
#include "storage/volume_catalog.h"

namespace faultline {

// Of those who call through a Unix socket of a server that knows identities.
inline constexpr absl::string_view kLocalIdentity = "@local";

struct Caller {
  std::string identity;  // empty: not known
  std::string peer;      // address, as gRPC writes it
  bool unrestricted = false;
  // What it uses. Never null of one that CallerOf() has made.
  std::shared_ptr<ClientAccount> account = nullptr;
};

// What is called, for the audit log.
struct AuditedCall {
  enum class Log { kAlways, kRefusals };
  absl::string_view call;
  absl::string_view volume;  // as the caller has named it
  Log log = Log::kAlways;
};

// Thread-safe.
class AccessControl {
 public:
  struct Options {
    bool enforced = false;
    std::set<std::string, std::less<>> admins;
    ClientLimits limits = {};
  };

  // Both are borrowed and must outlive this.
  AccessControl(VolumeCatalog* catalog, ServerCounters* counters, Options options);

  VolumeCatalog& catalog() const { return *catalog_; }

  // Of a call that a client has made.
  Caller CallerOf(const grpc::ServerContext& context) const;

  // What the caller may do with a volume; everything counts as kOwner.
  VolumeRole RoleOf(const Caller& caller, const VolumeInfo& info) const;

  // The volume or snapshot, with which the caller has at least the role `needed`; else
  // PERMISSION_DENIED. NOT_FOUND only to those who may do everything.
  absl::StatusOr<std::shared_ptr<Volume>> Find(const Caller& caller, absl::string_view name,
                                               VolumeRole needed) const;
  absl::StatusOr<std::shared_ptr<Volume>> FindById(const Caller& caller, uint64_t id,
                                                   VolumeRole needed) const;
  // Whether a volume of this size may be made by and for the caller: PERMISSION_DENIED for nobody,
  // RESOURCE_EXHAUSTED beyond a limit.
  absl::Status CheckMayMake(const Caller& caller, uint64_t size_bytes) const;
  // RESOURCE_EXHAUSTED where all that `owner` owns, and `more_bytes`, are beyond the quota. What is
  // stored is looked at now and then only.
  absl::Status CheckQuota(const std::string& owner, uint64_t more_bytes = 0) const
      ABSL_LOCKS_EXCLUDED(mu_);
  bool has_quota() const { return options_.limits.quota_bytes != kUnlimited; }
  // PERMISSION_DENIED for all but administrators.
  absl::Status CheckAdmin(const Caller& caller) const;
  // `status`, of making a volume `name`, unless it tells of one that the caller must not know of.
  absl::Status Veil(const Caller& caller, absl::string_view name, absl::Status status) const;

  // Writes down and counts how a call has ended; returns `status`. Of many refusals only some have
  // a line of their own.
  absl::Status Audit(const Caller& caller, const AuditedCall& call, absl::Status status) const;
  // The same of a connection that did not come about; `why` is the library's word.
  void AuditFailedHandshake(absl::string_view why) const;

 private:
  absl::Status CheckRole(const Caller& caller, const Volume& volume, absl::string_view volume_text,
                         VolumeRole needed) const;
  // How many lines are written.
  class LineBudget {
   public:
    // Whether there is one for a line, and of how many before it there was none.
    std::optional<uint64_t> Take();

   private:
    Mutex mu_;
    absl::Time second_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();  // when it began
    uint64_t logged_ ABSL_GUARDED_BY(mu_) = 0;                       // in that second
    uint64_t left_out_ ABSL_GUARDED_BY(mu_) = 0;                     // since the last line
  };
  static void LogRefusal(absl::string_view line, LineBudget* budget);

  VolumeCatalog* const catalog_;
  ServerCounters* const counters_;
  const Options options_;
  const std::unique_ptr<ClientAccounts> accounts_;

  // What an owner's volumes took when that was looked at last.
  struct Usage {
    absl::Time looked = absl::InfinitePast();
    uint64_t bytes = 0;
  };

  mutable Mutex mu_;
  mutable std::map<std::string, Usage, std::less<>> usage_ ABSL_GUARDED_BY(mu_);
  // Of their own, so that who has no certificate cannot keep refused calls from being written down.
  mutable LineBudget calls_, handshakes_;
};

}  // namespace faultline

#endif  // FAULTLINE_SERVER_ACCESS_CONTROL_H_
