// SPDX-License-Identifier: Apache-2.0
#include "server/access_control.h"

#include <absl/strings/escaping.h>
#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <absl/time/clock.h>
#include <grpc/grpc_security_constants.h>
#include <grpcpp/security/auth_context.h>

#include <utility>
#include <vector>

#include "proto/log.h"

namespace faultline {
namespace {

// Anybody can be refused as often as they like; that must not fill a disk.
constexpr uint64_t kMaxRefusalLinesPerSecond = 50;
// Of what a caller has sent as a name.
constexpr size_t kMaxNameBytes = 256;
// What the store says of its own size is about as old.
constexpr absl::Duration kUsageIsGoodFor = absl::Seconds(1);

std::string CommonName(const grpc::ServerContext& context) {
  const std::shared_ptr<const grpc::AuthContext> auth = context.auth_context();
  if (auth == nullptr) return "";
  const std::vector<grpc::string_ref> names = auth->FindPropertyValues(GRPC_X509_CN_PROPERTY_NAME);
  if (names.size() != 1) return "";
  std::string name(names[0].data(), names[0].size());
  return CheckIdentity(name).ok() && name[0] != '@' ? name : "";
}

std::string Printable(absl::string_view name) {
  return absl::StrCat("\"", absl::CEscape(name.substr(0, kMaxNameBytes)), "\"");
}

std::string NamedBy(const Caller& caller) {
  return caller.identity.empty() ? "a client without a name" : Printable(caller.identity);
}

// The one answer to those who must not learn whether the volume is there.
absl::Status NothingToSee(const Caller& caller, absl::string_view volume_text) {
  return absl::PermissionDeniedError(
      absl::StrCat("there is no ", volume_text, " that ", NamedBy(caller),
                   " may use; where there is one, its owner can grant that: faultline volume "
                   "grant"));
}

}  // namespace

AccessControl::AccessControl(VolumeCatalog* catalog, ServerCounters* counters, Options options)
    : catalog_(catalog),
      counters_(counters),
      options_(std::move(options)),
      accounts_(std::make_unique<ClientAccounts>(options_.limits)) {}

Caller AccessControl::CallerOf(const grpc::ServerContext& context) const {
  Caller caller{.identity = "", .peer = context.peer(), .unrestricted = !options_.enforced};
  if (options_.enforced) {
    caller.identity =
        absl::StartsWith(caller.peer, "unix") ? std::string(kLocalIdentity) : CommonName(context);
    caller.unrestricted = options_.admins.contains(caller.identity);
  }
  caller.account = accounts_->Of(caller.identity, caller.peer);
  return caller;
}

VolumeRole AccessControl::RoleOf(const Caller& caller, const VolumeInfo& info) const {
  return caller.unrestricted ? VolumeRole::kOwner : info.access.RoleOf(caller.identity);
}

absl::Status AccessControl::CheckRole(const Caller& caller, const Volume& volume,
                                      absl::string_view volume_text, VolumeRole needed) const {
  if (caller.unrestricted) return absl::OkStatus();
  const VolumeRole role = volume.RoleOf(caller.identity);
  if (role == VolumeRole::kNone) return NothingToSee(caller, volume_text);
  if (role >= needed) return absl::OkStatus();
  return absl::PermissionDeniedError(
      absl::StrCat(volume_text, ": ", NamedBy(caller), " is its ", VolumeRoleName(role),
                   ", and this takes a role of ", VolumeRoleName(needed),
                   "; its owner can grant that: faultline volume grant"));
}

absl::StatusOr<std::shared_ptr<Volume>> AccessControl::Find(const Caller& caller,
                                                            absl::string_view name,
                                                            VolumeRole needed) const {
  absl::StatusOr<std::shared_ptr<Volume>> volume = catalog_->Find(name);
  if (caller.unrestricted) return volume;
  const std::string text = absl::StrCat("volume or snapshot ", Printable(name));
  if (!volume.ok()) return NothingToSee(caller, text);
  if (absl::Status status = CheckRole(caller, **volume, text, needed); !status.ok()) return status;
  return volume;
}

absl::StatusOr<std::shared_ptr<Volume>> AccessControl::FindById(const Caller& caller, uint64_t id,
                                                                VolumeRole needed) const {
  absl::StatusOr<std::shared_ptr<Volume>> volume = catalog_->FindById(id);
  if (caller.unrestricted) return volume;
  const std::string text = absl::StrCat("volume with the id ", id);
  if (!volume.ok()) return NothingToSee(caller, text);
  if (absl::Status status = CheckRole(caller, **volume, text, needed); !status.ok()) return status;
  return volume;
}

absl::Status AccessControl::CheckMayMake(const Caller& caller, uint64_t size_bytes) const {
  if (caller.unrestricted) return absl::OkStatus();
  if (caller.identity.empty()) {
    return absl::PermissionDeniedError(
        "a client without a name may not make volumes; its certificate needs a common name of 1 to "
        "128 letters, digits and ._:/+-");
  }
  if (size_bytes > options_.limits.max_volume_bytes) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "a volume of ", size_bytes, " bytes is larger than one that a client may make here, ",
        options_.limits.max_volume_bytes, " bytes (--client-volume-size)"));
  }
  return CheckQuota(caller.identity);
}

absl::Status AccessControl::CheckQuota(const std::string& owner, uint64_t more_bytes) const {
  const uint64_t quota = options_.limits.quota_bytes;
  if (!has_quota() || owner.empty() || options_.admins.contains(owner)) {
    return absl::OkStatus();
  }
  const absl::Time now = absl::Now();
  Usage usage;
  {
    MutexLock lock(mu_);
    usage = usage_[owner];
  }
  if (now - usage.looked > kUsageIsGoodFor) {
    const absl::StatusOr<uint64_t> bytes = catalog_->StoredBytesOf(owner);
    if (!bytes.ok()) return bytes.status();
    usage = {now, *bytes};
    MutexLock lock(mu_);
    usage_[owner] = usage;
  }
  if (usage.bytes < quota && more_bytes < quota - usage.bytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("the volumes of ", Printable(owner), " take ", usage.bytes + more_bytes,
                   " bytes in the store, of ", quota,
                   " that one client may have here (--client-quota); trim or delete some"));
}

absl::Status AccessControl::CheckAdmin(const Caller& caller) const {
  if (caller.unrestricted) return absl::OkStatus();
  return absl::PermissionDeniedError(absl::StrCat(
      NamedBy(caller), " is no administrator of this server; its --admin names those"));
}

absl::Status AccessControl::Veil(const Caller& caller, absl::string_view name,
                                 absl::Status status) const {
  if (caller.unrestricted || !absl::IsAlreadyExists(status)) return status;
  const absl::Status seen = Find(caller, name, VolumeRole::kReader).status();
  return seen.ok() ? status : seen;
}

absl::Status AccessControl::Audit(const Caller& caller, const AuditedCall& call,
                                  absl::Status status) const {
  const bool refused = absl::IsPermissionDenied(status);
  if (refused) counters_->calls_refused.Add(1);
  if (!refused && call.log == AuditedCall::Log::kRefusals) return status;
  const std::string line = absl::StrCat(
      "audit: identity=", caller.identity.empty() ? "-" : caller.identity, " peer=", caller.peer,
      " call=", call.call, " volume=", Printable(call.volume), " outcome=",
      status.ok() ? "ok" : (refused ? "refused" : absl::StatusCodeToString(status.code())));
  if (refused) {
    LogRefusal(line, &calls_);
  } else {
    LogInfo(line);
  }
  return status;
}

void AccessControl::AuditFailedHandshake(absl::string_view why) const {
  counters_->handshakes_failed.Add(1);
  LogRefusal(absl::StrCat("audit: identity=- call=connect outcome=refused: ", why), &handshakes_);
}

std::optional<uint64_t> AccessControl::LineBudget::Take() {
  const absl::Time now = absl::Now();
  MutexLock lock(mu_);
  if (now - second_ >= absl::Seconds(1) || now < second_) {
    second_ = now;
    logged_ = 0;
  }
  if (logged_ >= kMaxRefusalLinesPerSecond) {
    ++left_out_;
    return std::nullopt;
  }
  ++logged_;
  return std::exchange(left_out_, 0);
}

void AccessControl::LogRefusal(absl::string_view line, LineBudget* budget) {
  const std::optional<uint64_t> left_out = budget->Take();
  if (!left_out) return;
  if (*left_out > 0) {
    LogWarning(absl::StrCat("audit: ", *left_out, " more refusals before this one had no line"));
  }
  LogWarning(line);
}

}  // namespace faultline
