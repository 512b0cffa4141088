// SPDX-License-Identifier: Apache-2.0
#include "storage/rados_lease.h"

#include <absl/strings/str_cat.h>
#include <pthread.h>
#include <time.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

#include "proto/log.h"

namespace faultline {
namespace {

constexpr int64_t kSecond = 1'000'000'000;
constexpr int64_t kLease = kSecond * 7 / 10;
constexpr auto kRenewEvery = std::chrono::milliseconds(200);
// The OSD counts it, in whole seconds.
constexpr auto kLeaseWait = std::chrono::seconds(1);
constexpr uint32_t kWatchSeconds = 20;
constexpr auto kRewatchEvery = std::chrono::seconds(1);

int64_t TimeNs(clockid_t clock) {
  timespec now;
  clock_gettime(clock, &now);
  return now.tv_sec * kSecond + now.tv_nsec;
}

int64_t BootTimeNs() { return TimeNs(CLOCK_BOOTTIME); }

// How long the machine was suspended since it was booted.
int64_t SuspendedNs() { return BootTimeNs() - TimeNs(CLOCK_MONOTONIC); }

}  // namespace

// One watch of the store's object.
class RadosLease::Watch final : public librados::WatchCtx2 {
 public:
  explicit Watch(RadosLease* lease) : lease_(lease) {}
  ~Watch() override {
    if (result_ != 0) return;
    lease_->client_->io().unwatch2(handle_);
    lease_->client_->FlushWatches();  // no call of the below is under way after that
  }

  int Begin() {
    suspended_ns_ = SuspendedNs();
    return result_ = lease_->client_->io().watch3(kRadosStoreObject, &handle_, this, kWatchSeconds);
  }
  // Whether nobody who notifies from here on, until a lease has ended, leaves it out.
  bool IsSafe() {
    // librados' clock does not go on in a suspended machine, the OSD's does.
    if (failed_ || SuspendedNs() - suspended_ns_ > kSecond) return false;
    const int age_ms = lease_->client_->io().watch_check(handle_);
    return age_ms >= 0 && age_ms < static_cast<int>(kWatchSeconds) * 1000 / 2;
  }

  void handle_notify(uint64_t notify_id, uint64_t cookie, uint64_t,
                     librados::bufferlist& bytes) override {
    lease_->OnNotify(bytes.to_str());
    librados::bufferlist nothing;
    lease_->client_->io().notify_ack(kRadosStoreObject, notify_id, cookie, nothing);
  }
  void handle_error(uint64_t, int) override {
    failed_ = true;
    lease_->End();
  }

 private:
  RadosLease* const lease_;
  uint64_t handle_ = 0;
  int result_ = -ENOTCONN;
  int64_t suspended_ns_ = 0;
  std::atomic<bool> failed_ = false;
};

RadosLease::RadosLease(RadosClient* client, std::function<absl::Status()> check_owners)
    : client_(client),
      check_owners_(std::move(check_owners)),
      name_(RadosClient::UniqueName()),
      thread_([this] { Loop(); }) {
  pthread_setname_np(thread_.native_handle(), "store-lease");
}

RadosLease::~RadosLease() {
  {
    MutexLock lock(mu_);
    stopping_ = true;
    wanted_changed_.SignalAll();
  }
  thread_.join();
}

bool RadosLease::Look(const uint64_t* version) {
  MutexLock lock(mu_);
  if (!std::exchange(wanted_, true)) wanted_changed_.SignalAll();
  return BootTimeNs() < until_ns_ && (version == nullptr || version_ == *version);
}

void RadosLease::OnNotify(const std::string& from) {
  if (from != name_) End();
}

void RadosLease::End() {
  MutexLock lock(mu_);
  ++ended_;
  until_ns_ = 0;
}

void RadosLease::EndOthers() {
  librados::bufferlist from;
  from.append(name_);
  librados::bufferlist answers;
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(kLeaseWait).count();
  const int result =
      client_->io().notify2(kRadosStoreObject, from, static_cast<uint64_t>(ms), &answers);
  // After a timeout that time has passed; after any other failure it has to.
  if (result < 0 && result != -ETIMEDOUT) std::this_thread::sleep_for(kLeaseWait);
}

void RadosLease::Loop() {
  auto next = std::chrono::steady_clock::now();
  while (true) {
    {
      MutexLock lock(mu_);
      while (!stopping_ && (!wanted_ || std::chrono::steady_clock::now() < next)) {
        if (wanted_) {
          wanted_changed_.WaitUntil(mu_, next);
        } else {
          wanted_changed_.Wait(mu_);
        }
      }
      if (stopping_) break;
      wanted_ = false;
    }
    next = std::chrono::steady_clock::now() + kRenewEvery;
    if (watch_ == nullptr || !watch_->IsSafe()) {
      End();  // nobody would tell of what ends it
      watch_.reset();
      watch_ = std::make_unique<Watch>(this);
      if (const int result = watch_->Begin(); result < 0) {
        LogDebug(absl::StrCat("no watch, and so no lease: ", strerror(-result)));
        watch_.reset();
        next += kRewatchEvery;
        continue;
      }
    }
    Renew();
  }
  watch_.reset();
}

void RadosLease::Renew() {
  const int64_t asked = BootTimeNs();
  uint64_t ended = 0;
  {
    MutexLock lock(mu_);
    ended = ended_;
  }
  // Again, behind the look at `ended_`: what fails from here on changes that.
  if (!watch_->IsSafe()) return;
  const absl::StatusOr<RadosClient::StoreState> state = client_->ReadStoreState();
  if (!state.ok()) return;
  if (state->epoch != checked_epoch_) {
    if (!check_owners_().ok()) return;
    checked_epoch_ = state->epoch;
  }
  MutexLock lock(mu_);
  if (ended_ != ended) return;
  until_ns_ = asked + kLease;
  version_ = state->version;
}

}  // namespace faultline
