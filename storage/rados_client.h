// SPDX-License-Identifier: Apache-2.0
//
// RadosClient: a connection to a pool, either shared, or of the one owner of something there, whose
// changes nobody else can make. RadosBatch: many operations at the same time.
#ifndef FAULTLINE_STORAGE_RADOS_CLIENT_H_
#define FAULTLINE_STORAGE_RADOS_CLIENT_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "storage/page_store.h"
#include "storage/run_thread.h"

#include <rados/librados.hpp>

namespace faultline {

// The object that has the metadata. A program that let one process at a time have a namespace has
// its owner's lock and epoch there.
inline constexpr char kRadosStoreObject[] = "store";
inline constexpr char kRadosMetaVersion[] = "version";  // an attribute of it

// How long a process that was the owner is kept out, in seconds. The list of those is part of the
// cluster's map, so it must not grow for ever.
inline constexpr uint32_t kFenceSeconds = 30 * 24 * 3600;

class RadosBatch;

// A change of one object.
struct RadosChange {
  enum class Absent : uint8_t { kMake, kLeave };

  std::string object;
  // Adds what is to be done. Called again where the object was not as expected.
  std::function<void(librados::ObjectWriteOperation*)> fill;
  bool expected = true;           // whether the object is thought to be there
  Absent absent = Absent::kMake;  // what to do where it is not
  bool frees = false;             // takes no space, so it is done in a full pool, too
};

// Thread-safe.
class RadosClient {
 public:
  // Connects to POOL[/NAMESPACE], which others may be as well. See OpenRadosPageStore().
  static absl::StatusOr<std::unique_ptr<RadosClient>> Open(absl::string_view location,
                                                           const PageStoreOptions& options);
  // Connects as the owner of what `lock`, the name of an object, stands for. Whoever was that
  // before is fenced, with all of that connection: once this returns, every OSD that has objects of
  // the pool refuses what it sends, reads included. The connection is made by `connector`.
  static absl::StatusOr<std::unique_ptr<RadosClient>> OpenOwner(absl::string_view location,
                                                                const PageStoreOptions& options,
                                                                const std::string& lock,
                                                                RunThread* connector);
  // Gives up being the owner.
  ~RadosClient();
  RadosClient(const RadosClient&) = delete;
  RadosClient& operator=(const RadosClient&) = delete;

  librados::IoCtx& io() { return io_; }
  bool owner() const { return !lock_.empty(); }

  uint64_t epoch() const { return epoch_; }
  // What the store's object says of the namespace as a whole.
  struct StoreState {
    uint64_t version = 0;  // of the metadata
    uint64_t epoch = 0;    // of whoever has become the owner of anything last
  };
  absl::StatusOr<StoreState> ReadStoreState();
  // Waits until no call of a watch that has ended is under way.
  void FlushWatches() { cluster_.watch_flush(); }
  // Among all processes that ever have the namespace open.
  static std::string UniqueName();

  // Whether this is the owner still; ABORTED where it is not.
  absl::Status CheckOwner();
  // Removes the lock's object, as what it stands for is gone; unless this is the owner no more.
  absl::Status RemoveLock();
  // Fences whoever is the owner of `lock`, and has nobody be it.
  absl::Status FenceOwner(const std::string& lock);

  // Makes all changes, many at the same time, each of them atomic and, an owner's, conditional: it
  // fails where a later owner has changed the object. On an error some may have been made.
  absl::Status Apply(absl::string_view doing, std::span<RadosChange> changes);
  absl::Status Apply(absl::string_view doing, RadosChange change) {
    return Apply(doing, std::span(&change, 1));
  }

  // The status of a failed operation; `result` is negative. ABORTED where this has been fenced, or
  // what the operation depended on is not so.
  absl::Status Failed(absl::string_view doing, int result);

 private:
  explicit RadosClient(absl::string_view location) : location_(location) {}

  absl::Status Connect(const PageStoreOptions& options);
  absl::Status TakeOver(const std::string& lock);
  absl::Status TellAllOsds();
  absl::Status RaiseEpoch();
  void Submit(const RadosChange& change, RadosBatch* batch, int* result);

  const std::string location_;
  librados::Rados cluster_;
  librados::IoCtx io_;
  bool connected_ = false;
  std::string pool_;
  std::string lock_;  // the object; empty where this is no owner
  std::string cookie_;
  uint64_t epoch_ = 0;                // of an owner; larger than that of any before, of anything
  std::atomic<bool> fenced_ = false;  // known to be
};

// Operations under way at the same time, up to a number. Waits for all of them when it goes. Not
// thread-safe. What an operation reads into must outlive the batch.
class RadosBatch {
 public:
  // Gets the result of its operation: 0, or negative. Called in Submit(), Wait() or ~RadosBatch(),
  // in the order in which operations were submitted, but for those that fail at once.
  using Done = std::function<void(int result)>;

  explicit RadosBatch(librados::IoCtx* io) : io_(io) {}
  ~RadosBatch() { Wait(); }
  RadosBatch(const RadosBatch&) = delete;
  RadosBatch& operator=(const RadosBatch&) = delete;

  void Submit(const std::string& object, librados::ObjectWriteOperation* op, int flags, Done done);
  void Submit(const std::string& object, librados::ObjectReadOperation* op, Done done);
  void Wait();

 private:
  struct UnderWay {
    librados::AioCompletion* completion;
    Done done;
  };

  void MakeRoom();
  void Track(librados::AioCompletion* completion, int submitted, Done done);
  void WaitForOldest();

  librados::IoCtx* const io_;
  std::deque<UnderWay> under_way_;
};

}  // namespace faultline

#endif  // FAULTLINE_STORAGE_RADOS_CLIENT_H_
