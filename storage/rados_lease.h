// SPDX-License-Identifier: Apache-2.0
//
// RadosLease: for how long this process may take for true, without asking the pool, what it knows
// of the metadata and of who owns what.
//
// A lease is granted by the pool's answer to what this process has asked: that nobody has changed
// the metadata or taken a volume from its owner, as of when it was asked. It ends kLease after
// that. Who does one of the two tells all others, by notify on the store's object, which all of
// them watch, and waits until each has given its lease up and said so; one that does not answer, as
// it was stopped, or has lost its connection, is waited for until its lease has ended by itself
// (kLeaseWait). Only then is the change acknowledged, or the volume written by its new owner.
//
// So whoever answers from memory and holds a lease at some moment between question and answer has
// told what was true then. It makes no difference how long it was stopped before or after that: the
// clock, which goes on while the process or the machine sleeps, is read at each look. What it takes
// is that the clocks of a server and of an OSD do not differ by more than a third in how fast they
// go; a machine that is itself frozen from outside, with its clock, is not covered.
//
// A watch ends kWatchSeconds after the pool has last heard of it, and a lease is granted only where
// that is less than half of that ago; so nobody has one who is not told.
#ifndef FAULTLINE_STORAGE_RADOS_LEASE_H_
#define FAULTLINE_STORAGE_RADOS_LEASE_H_

#include <absl/status/status.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "proto/mutex.h"
#include "storage/rados_client.h"

namespace faultline {

// Thread-safe. A thread renews the lease for as long as somebody looks at it.
class RadosLease {
 public:
  // `client` is borrowed. `check_owners` asks the pool whether this process is the owner still of
  // what it takes itself for that, and has forgotten what it is not, where it returns OK; on a
  // thread of this. Where a watch cannot be had, there is no lease until it can.
  RadosLease(RadosClient* client, std::function<absl::Status()> check_owners);
  ~RadosLease();
  RadosLease(const RadosLease&) = delete;
  RadosLease& operator=(const RadosLease&) = delete;

  // Whether nobody has taken over anything that this process owns.
  bool HoldsOwners() { return Look(nullptr); }
  // Whether this is the version of the metadata, too.
  bool HoldsMeta(uint64_t version) { return Look(&version); }

  // What was known of the metadata has shown itself to be old: there is none until the pool was
  // asked again.
  void End();

  // This process has changed the metadata, or taken something from another owner: returns once
  // nobody else holds a lease on how it was before.
  void EndOthers();

 private:
  class Watch;

  bool Look(const uint64_t* version);
  void Loop();
  void Renew();
  void OnNotify(const std::string& from);

  RadosClient* const client_;
  const std::function<absl::Status()> check_owners_;
  const std::string name_;  // of this process among those that notify
  std::unique_ptr<Watch> watch_;
  uint64_t checked_epoch_ = 0;  // by the thread: when no owner but those that are known was lost

  Mutex mu_;
  CondVar wanted_changed_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  bool wanted_ ABSL_GUARDED_BY(mu_) = false;   // somebody has looked since it was renewed
  uint64_t ended_ ABSL_GUARDED_BY(mu_) = 0;    // how often others have ended it
  int64_t until_ns_ ABSL_GUARDED_BY(mu_) = 0;  // of CLOCK_BOOTTIME
  uint64_t version_ ABSL_GUARDED_BY(mu_) = 0;  // of the metadata, then
  std::thread thread_;                         // last: it uses all of the above
};

}  // namespace faultline

#endif  // FAULTLINE_STORAGE_RADOS_LEASE_H_
