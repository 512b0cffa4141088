// SPDX-License-Identifier: Apache-2.0
//
// FakeUffd: a scripted kernel for tests. It holds a small memory of its own, so that tests compare
// bytes, and returns whatever the kernel may return, on demand.
#ifndef FAULTLINE_CLIENT_UFFD_FAKE_UFFD_H_
#define FAULTLINE_CLIENT_UFFD_FAKE_UFFD_H_

#include <errno.h>

#include <deque>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "client/uffd/uffd.h"
#include "proto/mutex.h"
#include "proto/page.h"

namespace faultline {

// Thread-safe.
class FakeUffd final : public Uffd {
 public:
  // One call of a fill ioctl as the kernel saw it.
  struct Call {
    enum class Op { kCopy, kZero, kPoison, kWake } op;
    AddressRange range;
    friend bool operator==(const Call&, const Call&) = default;
  };
  static constexpr char kPoisoned[] = "poisoned";

  // Addresses outside of all registered ranges give ENOENT.
  void AddRegistered(AddressRange range) {
    MutexLock lock(mu_);
    registered_.push_back(range);
  }
  // As a munmap, but without an event.
  void RemoveRegistered(AddressRange range) {
    MutexLock lock(mu_);
    std::erase(registered_, range);
  }
  // The next Read() returns these together; 0 after the last batch.
  void QueueEvents(std::vector<UffdEvent> batch) {
    MutexLock lock(mu_);
    batches_.push_back(std::move(batch));
  }
  // Called inside the Read() that returns the next batch, before it returns.
  void OnRead(std::function<void()> hook) {
    MutexLock lock(mu_);
    on_read_ = std::move(hook);
  }
  // Called inside the next fill, before it has any effect.
  void OnFill(std::function<void()> hook) {
    MutexLock lock(mu_);
    on_fill_ = std::move(hook);
  }
  // The next fill ends this way, without effect but for `bytes_done` bytes.
  void QueueResult(FillResult result) {
    MutexLock lock(mu_);
    results_.push_back(result);
  }

  // The content of the page at `address`: 4096 bytes, kPoisoned, or empty where nothing is.
  std::string PageAt(uint64_t address) const {
    MutexLock lock(mu_);
    const auto page = pages_.find(address);
    return page == pages_.end() ? std::string() : page->second;
  }
  void SetPage(uint64_t address, std::string bytes) {
    MutexLock lock(mu_);
    pages_[address] = std::move(bytes);
  }
  // As MADV_DONTNEED, but without an event.
  void DropPage(uint64_t address) {
    MutexLock lock(mu_);
    pages_.erase(address);
  }
  std::vector<Call> calls() const {
    MutexLock lock(mu_);
    return calls_;
  }
  bool WasWoken(uint64_t address) const {
    MutexLock lock(mu_);
    for (const Call& call : calls_) {
      if (call.op == Call::Op::kWake && call.range.Contains(address)) return true;
    }
    return false;
  }

  int fd() const override { return -1; }
  uint64_t features() const override { return 0; }

  absl::StatusOr<size_t> Read(std::vector<UffdEvent>* events) override {
    std::vector<UffdEvent> batch;
    std::function<void()> hook;
    {
      MutexLock lock(mu_);
      if (batches_.empty()) return 0;
      batch = std::move(batches_.front());
      batches_.pop_front();
      hook = std::exchange(on_read_, nullptr);
    }
    if (hook) hook();
    const size_t n = batch.size();
    for (UffdEvent& event : batch) events->push_back(std::move(event));
    return n;
  }

  FillResult NotedCopy(uint64_t address, std::span<const std::byte> bytes, uffdio_copy*) override {
    return Fill(Call::Op::kCopy, {address, bytes.size()}, [&](uint64_t offset) {
      return std::string(reinterpret_cast<const char*>(bytes.data()) + offset, kPageSize);
    });
  }
  FillResult Zero(AddressRange range) override {
    return Fill(Call::Op::kZero, range, [](uint64_t) { return std::string(kPageSize, '\0'); });
  }
  FillResult Poison(AddressRange range) override {
    return Fill(Call::Op::kPoison, range, [](uint64_t) { return std::string(kPoisoned); });
  }
  // What Probe() returns from now on.
  void SetState(SpaceState state) {
    MutexLock lock(mu_);
    state_ = state;
  }
  SpaceState Probe() override {
    MutexLock lock(mu_);
    return state_;
  }
  std::optional<bool> IsRegistered(AddressRange range) override {
    MutexLock lock(mu_);
    return IsWithinRegistered(range);
  }
  void Wake(AddressRange range) override {
    MutexLock lock(mu_);
    calls_.push_back({Call::Op::kWake, range});
  }
  int WriteProtect(AddressRange, bool) override { return 0; }
  absl::Status Register(AddressRange range, Protection) override {
    AddRegistered(range);
    return absl::OkStatus();
  }
  absl::Status Unregister(AddressRange range) override {
    RemoveRegistered(range);
    return absl::OkStatus();
  }

 private:
  FillResult Fill(Call::Op op, AddressRange range,
                  const std::function<std::string(uint64_t offset)>& content) {
    std::function<void()> hook;
    {
      MutexLock lock(mu_);
      hook = std::exchange(on_fill_, nullptr);
    }
    if (hook) hook();
    MutexLock lock(mu_);
    calls_.push_back({op, range});
    FillResult result{0, range.length};
    if (!results_.empty()) {
      result = results_.front();
      results_.pop_front();
    } else if (!IsWithinRegistered(range)) {
      return {ENOENT, 0};
    }
    for (uint64_t offset = 0; offset < result.bytes_done; offset += kPageSize) {
      if (!pages_.try_emplace(range.start + offset, content(offset)).second) {
        return offset == 0 ? FillResult{EEXIST, 0} : FillResult{EAGAIN, offset};
      }
    }
    return result;
  }

  // As the kernel: the range must lie within one registered mapping.
  bool IsWithinRegistered(AddressRange range) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    for (AddressRange registered : registered_) {
      if (registered.start <= range.start && range.end() <= registered.end()) return true;
    }
    return false;
  }

  mutable Mutex mu_;
  SpaceState state_ ABSL_GUARDED_BY(mu_) = SpaceState::kSettled;
  std::vector<AddressRange> registered_ ABSL_GUARDED_BY(mu_);
  std::deque<std::vector<UffdEvent>> batches_ ABSL_GUARDED_BY(mu_);
  std::function<void()> on_read_ ABSL_GUARDED_BY(mu_);
  std::function<void()> on_fill_ ABSL_GUARDED_BY(mu_);
  std::deque<FillResult> results_ ABSL_GUARDED_BY(mu_);
  std::map<uint64_t, std::string> pages_ ABSL_GUARDED_BY(mu_);
  std::vector<Call> calls_ ABSL_GUARDED_BY(mu_);
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_UFFD_FAKE_UFFD_H_
