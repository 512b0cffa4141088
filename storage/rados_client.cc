// SPDX-License-Identifier: Apache-2.0
#include "storage/rados_client.h"

#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_split.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <list>
#include <map>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "proto/log.h"

namespace faultline {
namespace {

constexpr char kLock[] = "owner";
constexpr char kEpoch[] = "epoch";

// Each is up to 260 KiB large, and an OSD works on few at a time anyway.
constexpr size_t kUnderWayMax = 32;

// Others may become the owner at the same time; each round, one of them does. The epoch is raised
// by those of other volumes, too.
constexpr int kTakeOverAttempts = 16;
constexpr int kEpochAttempts = 1000;

// To find one object in each placement group, far more than chance takes.
constexpr uint64_t kNamesForEachGroup = 100;

librados::bufferlist Bytes(absl::string_view text) {
  librados::bufferlist bytes;
  bytes.append(text.data(), static_cast<unsigned>(text.size()));
  return bytes;
}

std::string Describe() {
  char host[256] = "";
  gethostname(host, sizeof host - 1);
  return absl::StrCat("faultline on ", host, ", process ", getpid());
}

}  // namespace

absl::StatusOr<std::unique_ptr<RadosClient>> RadosClient::Open(absl::string_view location,
                                                               const PageStoreOptions& options) {
  const std::pair<absl::string_view, absl::string_view> parts =
      absl::StrSplit(location, absl::MaxSplits('/', 1));
  if (parts.first.empty() || parts.second.find('/') != absl::string_view::npos) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the store rados:", location, " needs a pool, as in rados:POOL or rados:POOL/NAMESPACE"));
  }
  std::unique_ptr<RadosClient> client(new RadosClient(location));
  if (absl::Status status = client->Connect(options); !status.ok()) return status;
  return client;
}

absl::StatusOr<std::unique_ptr<RadosClient>> RadosClient::OpenOwner(absl::string_view location,
                                                                    const PageStoreOptions& options,
                                                                    const std::string& lock,
                                                                    RunThread* connector) {
  absl::StatusOr<std::unique_ptr<RadosClient>> client;
  connector->Run([&] { client = Open(location, options); });
  if (!client.ok()) return client;
  if (absl::Status status = (*client)->TakeOver(lock); !status.ok()) return status;
  return client;
}

RadosClient::~RadosClient() {
  // Where this fails the next owner fences nobody who could still write.
  if (owner() && !fenced_) io_.unlock(lock_, kLock, cookie_);
  io_.close();
  if (connected_) cluster_.shutdown();
}

absl::Status RadosClient::Connect(const PageStoreOptions& options) {
  const std::string who = absl::StrCat("client.", options.rados_user);
  const auto cannot = [&](absl::StatusCode code, absl::string_view what, int result) {
    return absl::Status(code, absl::StrCat("cannot open the store rados:", location_, ": ", what,
                                           ": ", strerror(-result)));
  };
  if (const int result = cluster_.init2(who.c_str(), "ceph", 0); result < 0) {
    return cannot(absl::StatusCode::kInvalidArgument, who, result);
  }
  if (const int result = cluster_.conf_read_file(options.rados_conf.c_str()); result < 0) {
    return cannot(result == -ENOENT   ? absl::StatusCode::kNotFound
                  : result == -EACCES ? absl::StatusCode::kPermissionDenied
                                      : absl::StatusCode::kFailedPrecondition,
                  absl::StrCat("reading ", options.rados_conf, " (--rados-conf)"), result);
  }
  // Whatever the file says: an operation that has timed out is carried out later all the same.
  cluster_.conf_set("rados_osd_op_timeout", "0");
  cluster_.conf_set("rados_mon_op_timeout", "30");
  cluster_.conf_set("client_mount_timeout", "30");
  if (const int result = cluster_.connect(); result < 0) {
    const bool refused = result == -EACCES || result == -EPERM;
    return cannot(refused ? absl::StatusCode::kPermissionDenied : absl::StatusCode::kUnavailable,
                  absl::StrCat("connecting to the cluster of ", options.rados_conf, " as ", who,
                               refused ? "; does the keyring named there have its key?" : ""),
                  result);
  }
  connected_ = true;
  const std::pair<std::string, std::string> parts =
      absl::StrSplit(location_, absl::MaxSplits('/', 1));
  if (const int result = cluster_.ioctx_create(parts.first.c_str(), io_); result < 0) {
    return cannot(result == -ENOENT ? absl::StatusCode::kNotFound : absl::StatusCode::kUnavailable,
                  absl::StrCat("pool ", parts.first, "; create it first (ceph osd pool create)"),
                  result);
  }
  pool_ = parts.first;
  io_.set_namespace(parts.second);
  // In a full pool an operation would otherwise wait for room: even that by which this becomes the
  // owner, who may delete.
  io_.set_pool_full_try();
  return absl::OkStatus();
}

std::string RadosClient::UniqueName() {
  std::random_device random;
  return absl::StrCat(absl::Hex(random(), absl::kZeroPad8), absl::Hex(random(), absl::kZeroPad8));
}

absl::Status RadosClient::TakeOver(const std::string& lock) {
  cookie_ = UniqueName();
  for (int attempt = 0; attempt < kTakeOverAttempts; ++attempt) {
    const int result = io_.lock_exclusive(lock, kLock, cookie_, Describe(), nullptr, 0);
    if (result == 0) {
      lock_ = lock;
      return RaiseEpoch();
    }
    if (result != -EBUSY) return Failed("taking the owner's lock", result);
    if (absl::Status status = FenceOwner(lock); !status.ok()) return status;
  }
  return absl::UnavailableError(
      absl::StrCat("the store rados:", location_, ": ", lock,
                   " has found another owner each time that this process became it; how many "
                   "servers write to one volume?"));
}

absl::Status RadosClient::FenceOwner(const std::string& lock) {
  int exclusive = 0;
  std::string tag;
  std::list<librados::locker_t> lockers;
  const int listed = io_.list_lockers(lock, kLock, &exclusive, &tag, &lockers);
  if (listed == -ENOENT) return absl::OkStatus();
  if (listed < 0) return Failed("finding the owner", listed);
  for (const librados::locker_t& locker : lockers) {
    LogInfo(absl::StrCat("taking ", lock, " of the store rados:", location_, " over from ",
                         locker.client, " at ", locker.address, ", which can write to it no more"));
    int result = cluster_.blocklist_add(locker.address, kFenceSeconds);
    if (result < 0) {
      return Failed(absl::StrCat("fencing the owner before (this needs the right to blocklist: mon "
                                 "'allow command \"osd blocklist\"')"),
                    result);
    }
    result = cluster_.wait_for_latest_osdmap();
    if (result < 0) return Failed("waiting for the fence", result);
    if (absl::Status status = TellAllOsds(); !status.ok()) return status;
    result = io_.break_lock(lock, kLock, locker.client, locker.cookie);
    if (result < 0 && result != -ENOENT) return Failed("breaking the owner's lock", result);
  }
  return absl::OkStatus();
}

// An OSD learns of the fence with the first operation of somebody who knows of it, and until then
// serves the owner before. So there is one operation for each placement group.
absl::Status RadosClient::TellAllOsds() {
  librados::bufferlist answer;
  const std::string command = absl::StrCat(R"({"prefix":"osd pool get","pool":")", pool_,
                                           R"(","var":"pg_num","format":"json"})");
  int result = cluster_.mon_command(command, librados::bufferlist(), &answer, nullptr);
  if (result < 0) return Failed("finding the pool's placement groups", result);
  const std::string field = "\"pg_num\":";
  const std::string text = answer.to_str();
  const size_t at = text.find(field);
  uint64_t groups = 0;
  if (at == std::string::npos ||
      !absl::SimpleAtoi(
          text.substr(at + field.size(), text.find_first_of(",}", at) - at - field.size()),
          &groups)) {
    return absl::UnavailableError(absl::StrCat("no number of placement groups: ", text));
  }
  std::set<uint32_t> reached;
  int failed = 0;
  RadosBatch batch(&io_);
  for (uint64_t i = 0; reached.size() < groups; ++i) {
    if (i > kNamesForEachGroup * groups) {
      return absl::UnavailableError(absl::StrCat("the pool ", pool_, " has ", reached.size(),
                                                 " placement groups, not ", groups,
                                                 " as the monitor says; try again"));
    }
    const std::string object = absl::StrCat("fence.", i);
    uint32_t group = 0;
    result = io_.get_object_pg_hash_position2(object, &group);
    if (result < 0) return Failed("finding a placement group", result);
    // A pool that has been given more of them meanwhile.
    if (group >= groups) groups = uint64_t{group} + 1;
    if (!reached.insert(group).second) continue;
    librados::ObjectReadOperation op;
    op.stat(nullptr, nullptr, nullptr);
    batch.Submit(object, &op, [&failed](int done) {
      if (done < 0 && done != -ENOENT) failed = done;
    });
  }
  batch.Wait();
  return failed < 0 ? Failed("telling every OSD of the fence", failed) : absl::OkStatus();
}

absl::StatusOr<RadosClient::StoreState> RadosClient::ReadStoreState() {
  std::map<std::string, librados::bufferlist> attributes;
  const int read = io_.getxattrs(kRadosStoreObject, attributes);
  if (read < 0 && read != -ENOENT) return Failed("reading the version and the epoch", read);
  StoreState state;
  for (const auto& [name, number] :
       {std::pair(kRadosMetaVersion, &state.version), std::pair(kEpoch, &state.epoch)}) {
    const auto found = attributes.find(name);
    if (found == attributes.end() || absl::SimpleAtoi(found->second.to_str(), number)) continue;
    return absl::DataLossError(absl::StrCat("the ", name, " of ", kRadosStoreObject,
                                            " in the store rados:", location_, " is \"",
                                            found->second.to_str(), "\", no number"));
  }
  return state;
}

absl::Status RadosClient::RaiseEpoch() {
  // One count for the whole namespace: a layer may come to another volume, whose owner's epoch must
  // then be larger than those in its objects.
  int result = 0;
  for (int attempt = 0; attempt < kEpochAttempts; ++attempt) {
    const absl::StatusOr<StoreState> state = ReadStoreState();
    if (!state.ok()) return state.status();
    const uint64_t last = state->epoch;
    librados::ObjectWriteOperation op;
    op.cmpxattr(kEpoch, LIBRADOS_CMPXATTR_OP_EQ, last);
    op.setxattr(kEpoch, Bytes(absl::StrCat(last + 1)));
    result = io_.operate(kRadosStoreObject, &op, librados::OPERATION_FULL_FORCE);
    if (result == 0) {
      epoch_ = last + 1;
      RadosChange change{.object = lock_, .fill = [](auto*) {}, .frees = true};
      return Apply("raising the epoch", change);
    }
    if (result != -ECANCELED) break;  // another one was first
  }
  return result == -ECANCELED
             ? absl::UnavailableError(absl::StrCat("the store rados:", location_,
                                                   ": too many become owners at once; try again"))
             : Failed("raising the epoch", result);
}

absl::Status RadosClient::CheckOwner() {
  librados::bufferlist epoch;
  const int read = io_.getxattr(lock_, kEpoch, epoch);
  // It goes with its volume.
  const bool gone = read == -ENOENT || read == -ENODATA;
  if (read < 0 && !gone) return Failed("asking for the owner", read);
  return !gone && epoch.to_str() == absl::StrCat(epoch_)
             ? absl::OkStatus()
             : Failed("asking for the owner", -ESHUTDOWN);
}

absl::Status RadosClient::RemoveLock() {
  RadosChange change{.object = lock_,
                     .fill = [](auto* op) { op->remove(); },
                     .absent = RadosChange::Absent::kLeave,
                     .frees = true};
  return Apply("removing the owner's lock", change);
}

void RadosClient::Submit(const RadosChange& change, RadosBatch* batch, int* result) {
  librados::ObjectWriteOperation op;
  if (!change.expected) {
    // An object that is not there fails every comparison.
    op.create(/*exclusive=*/true);
  } else if (owner()) {
    op.cmpxattr(kEpoch, LIBRADOS_CMPXATTR_OP_GTE, epoch_);
  } else {
    op.assert_exists();
  }
  if (owner()) op.setxattr(kEpoch, Bytes(absl::StrCat(epoch_)));
  change.fill(&op);
  const int flags = change.frees ? librados::OPERATION_FULL_FORCE : librados::OPERATION_FULL_TRY;
  batch->Submit(change.object, &op, flags, [result](int done) { *result = done; });
}

absl::Status RadosClient::Apply(absl::string_view doing, std::span<RadosChange> changes) {
  std::vector<int> results(changes.size(), -EAGAIN);
  // What an object is changed by comes and goes with this process alone, so what is found the first
  // time is so the second time; but for what several delete.
  for (int attempt = 0; attempt < 3; ++attempt) {
    RadosBatch batch(&io_);
    for (size_t i = 0; i < changes.size(); ++i) {
      if (results[i] == -EAGAIN) Submit(changes[i], &batch, &results[i]);
    }
    batch.Wait();
    for (size_t i = 0; i < changes.size(); ++i) {
      RadosChange& change = changes[i];
      if (results[i] == -ENOENT && change.expected) {
        const bool leave = change.absent == RadosChange::Absent::kLeave;
        change.expected = false;
        results[i] = leave ? 0 : -EAGAIN;
      } else if (results[i] == -EEXIST && !change.expected) {
        change.expected = true;
        results[i] = -EAGAIN;
      }
    }
  }
  for (size_t i = 0; i < changes.size(); ++i) {
    if (results[i] < 0) return Failed(absl::StrCat(doing, ", ", changes[i].object), results[i]);
  }
  return absl::OkStatus();
}

absl::Status RadosClient::Failed(absl::string_view doing, int result) {
  const std::string what = absl::StrCat("the store rados:", location_, ": ", doing, ": ");
  switch (result) {
    case -ESHUTDOWN:
      // A connection that owns nothing is fenced by nobody but a person.
      if (!owner()) {
        return absl::UnavailableError(
            absl::StrCat(what, "this process is in the cluster's blocklist; restart it"));
      }
      [[fallthrough]];
    case -ECANCELED:
      if (owner()) fenced_ = true;
      return absl::AbortedError(absl::StrCat(what, "another process has taken it over"));
    case -ENOSPC:
    case -EDQUOT:
      return absl::ResourceExhaustedError(
          absl::StrCat(what, "the pool is full; delete volumes, or give it more room"));
    case -EIO:
      return absl::DataLossError(
          absl::StrCat(what, "no replica has it undamaged; see the cluster's health"));
    default:
      return absl::UnavailableError(absl::StrCat(what, strerror(-result)));
  }
}

void RadosBatch::Submit(const std::string& object, librados::ObjectWriteOperation* op, int flags,
                        Done done) {
  MakeRoom();
  librados::AioCompletion* const completion = librados::Rados::aio_create_completion();
  const int result = io_->aio_operate(object, completion, op, flags);
  Track(completion, result, std::move(done));
}

void RadosBatch::Submit(const std::string& object, librados::ObjectReadOperation* op, Done done) {
  MakeRoom();
  librados::AioCompletion* const completion = librados::Rados::aio_create_completion();
  const int result = io_->aio_operate(object, completion, op, nullptr);
  Track(completion, result, std::move(done));
}

void RadosBatch::Track(librados::AioCompletion* completion, int submitted, Done done) {
  if (submitted == 0) {
    under_way_.push_back({completion, std::move(done)});
    return;
  }
  completion->release();
  done(submitted);
}

void RadosBatch::MakeRoom() {
  if (under_way_.size() >= kUnderWayMax) WaitForOldest();
}

void RadosBatch::WaitForOldest() {
  const UnderWay oldest = std::move(under_way_.front());
  under_way_.pop_front();
  oldest.completion->wait_for_complete();
  const int result = oldest.completion->get_return_value();
  oldest.completion->release();
  oldest.done(result);
}

void RadosBatch::Wait() {
  while (!under_way_.empty()) WaitForOldest();
}

}  // namespace faultline
