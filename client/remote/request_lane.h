// SPDX-License-Identifier: Apache-2.0
//
// RequestLane: one stream of requests to a page server, on a connection of its own.
//
//   Submit -> waiting_ -> Pump -> flights_   one call, or several in one request, written by the
//                                            submitting thread
//   a response -> OnRead -> Rpc::Deliver     ends the calls of its flight: inline, on the thread
//                                            that received it, where a thread of a target waits
//                                            for them; otherwise on a worker
//
// At most `window` requests are under way; what is submitted meanwhile waits and then travels
// together: messages grow with the load, and a lone request is never delayed. Where nobody waits
// for each single one, no more than `small_window` of them may have room for others (the idea of
// Nagle's algorithm).
//
// The stream is started by the first call that needs it. When it breaks, every call ends, and the
// next one starts no sooner than a back-off later.
#ifndef FAULTLINE_CLIENT_REMOTE_REQUEST_LANE_H_
#define FAULTLINE_CLIENT_REMOTE_REQUEST_LANE_H_

#include <absl/container/flat_hash_map.h>
#include <absl/container/inlined_vector.h>
#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/str_cat.h>
#include <absl/time/clock.h>
#include <absl/time/time.h>
#include <grpcpp/alarm.h>
#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/support/async_stream.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "client/remote/call_queue.h"
#include "client/remote/completion_threads.h"
#include "client/remote/rpc_status.h"
#include "proto/mutex.h"

namespace faultline {

// How long a lane waits before it starts a stream after one broke; doubled until one has worked.
inline constexpr absl::Duration kFirstBackoff = absl::Milliseconds(10);
inline constexpr absl::Duration kLastBackoff = absl::Seconds(1);
// How late a deadline may be noticed.
inline constexpr absl::Duration kDeadlineTick = absl::Milliseconds(100);
static_assert(kFirstBackoff < kDeadlineTick && kDeadlineTick < kLastBackoff);
// Responses whose memory is kept for those to come, each with as much as its largest has needed,
// which is a MiB where much is fetched at once. More of them are under way only for a moment.
inline constexpr size_t kMaxIdleReceived = 8;

// Which thread ends calls. That which receives is kept free for those that somebody waits for.
enum class DeliverOn { kReceiver, kWorker };

// `Rpc` says what travels (see FetchRpc and WriteRpc):
//   Stub                      made from a channel, starts streams
//   Request, Response         what gRPC writes and reads
//   Call                      what is submitted: has a `deadline` and the callback `done`, which
//                             End(status) calls with an error
//   Received                  a Response `message` and what decoding it needs; used again after
//                             Release(received), which gives up what was received
//   Start(stub, context, queue, tag)   starts the stream
//   Combine(waiting, grows)   how many of the first calls travel as one request, at least 1; and
//                             whether one that comes later could join them
//   Fill(calls, id, request)  overwrites *request
//   Parse(received)           the id of the request that `message` answers, or why that is not to
//                             be had; comes before Deliver
//   Deliver(received, calls, again)    ends the calls, or moves some of them to *again, which are
//                             then sent once more
//
// Thread-safe. Calls are ended with no lock held.
template <typename Rpc>
class RequestLane {
 public:
  using Call = typename Rpc::Call;

  struct Options {
    std::string address;  // of the server, for messages
    size_t window;        // requests under way
    // Of them, while the next could take more calls.
    size_t small_window = std::numeric_limits<size_t>::max();
    DeliverOn deliver_on = DeliverOn::kWorker;
  };

  // `threads` is borrowed and must outlive the lane, but be stopped before that is destroyed.
  RequestLane(CompletionThreads* threads, const std::shared_ptr<grpc::Channel>& channel,
              Options options)
      : threads_(threads), options_(std::move(options)), stub_(channel) {}
  // REQUIRES: Shutdown() was called, and the threads were stopped.
  ~RequestLane() = default;
  RequestLane(const RequestLane&) = delete;
  RequestLane& operator=(const RequestLane&) = delete;

  void Submit(Call call) {
    bool needs_alarm = false;
    bool too_late = false;
    {
      MutexLock lock(mu_);
      too_late = shut_down_;
      if (!too_late) waiting_.push_back(std::move(call));
      if (stream_ == nullptr && absl::Now() >= retry_at_) StartStream();
      needs_alarm = !alarm_set_ || stream_ == nullptr;
    }
    if (too_late) return call.End(ShutDownError());
    Pump();
    if (needs_alarm) {  // after the request is on its way
      MutexLock lock(mu_);
      SetAlarm();
    }
  }

  // Ends what is under way with CANCELLED, and what is submitted from then on, and waits until no
  // operation is left. Destruction must wait until the threads have been stopped.
  void Shutdown() {
    Calls calls;
    {
      MutexLock lock(mu_);
      shut_down_ = true;
      if (stream_ != nullptr) stream_->context.TryCancel();
      if (alarm_set_) alarm_.Cancel();
      while (stream_ != nullptr || alarm_set_) idle_.Wait(mu_);
      MoveInto(&calls, &waiting_);
      waiting_.clear();
    }
    for (Call& call : calls) call.End(ShutDownError());
  }

 private:
  using Request = typename Rpc::Request;
  using Response = typename Rpc::Response;
  using Received = typename Rpc::Received;
  using Flight = absl::InlinedVector<Call, 1>;
  using Calls = std::vector<Call>;

  struct Step final : Completion {
    using Handler = void (RequestLane::*)(bool ok);
    Step(RequestLane* owner, Handler what) : lane(owner), handler(what) {}
    void Complete(bool ok) override { (lane->*handler)(ok); }
    RequestLane* const lane;
    const Handler handler;
  };

  struct Stream {
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientAsyncReaderWriter<Request, Response>> rpc;
    Request request;  // belongs to whoever has set `writing`
    std::unique_ptr<Received> receiving;
    grpc::Status status;
    absl::Status unreadable;  // what was wrong with what came
    int operations = 0;  // started and not yet completed; the stream lives as long as there are any
    bool open = false;
    bool writing = false;
    bool broken = false;
  };

  void StartStream() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (shut_down_) return;
    stream_ = std::make_unique<Stream>();
    stream_->operations = 1;
    stream_->rpc = Rpc::Start(&stub_, &stream_->context, threads_->queue(), &started_);
  }

  void OnStarted(bool ok) {
    {
      MutexLock lock(mu_);
      --stream_->operations;
      if (ok && !shut_down_) {
        stream_->open = true;
        ++stream_->operations;
        stream_->receiving = TakeReceived();
        stream_->rpc->Read(&stream_->receiving->message, &read_);
      } else {
        Break();
      }
    }
    Pump();
  }

  // Writes what waits, as far as the window lets it.
  void Pump() {
    for (;;) {
      Stream* stream;
      {
        MutexLock lock(mu_);
        if (!TakeRequest()) return;
        stream = stream_.get();
      }
      const auto event =
          threads_->StartHere([&] { stream->rpc->Write(stream->request, &written_); });
      if (!event) return;
      if (event->completion != &written_) {
        event->completion->Complete(event->ok);
        return;
      }
      EndWrite(event->ok);
    }
  }

  // Turns the first calls that wait into stream_->request; false where nothing can be sent now.
  bool TakeRequest() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (waiting_.empty() || stream_ == nullptr || !stream_->open || stream_->broken ||
        stream_->writing || flights_.size() >= options_.window) {
      return false;
    }
    bool grows = false;
    size_t n = Rpc::Combine(waiting_, &grows);
    if (grows && flights_.size() >= options_.small_window) return false;
    const uint64_t id = next_id_++;
    Flight& flight = flights_[id];
    for (; n > 0; --n) flight.push_back(waiting_.pop_front());
    Rpc::Fill(absl::MakeSpan(flight), id, &stream_->request);
    stream_->writing = true;
    ++stream_->operations;
    return true;
  }

  void OnWritten(bool ok) {
    EndWrite(ok);
    Pump();
  }

  void EndWrite(bool ok) {
    MutexLock lock(mu_);
    stream_->writing = false;
    --stream_->operations;
    if (!ok) stream_->broken = true;  // the read under way is about to fail, and knows why
    if (stream_->broken) FinishIfIdle();
  }

  void OnRead(bool ok) {
    std::unique_ptr<Received> received;
    {
      MutexLock lock(mu_);
      received = std::move(stream_->receiving);
      if (!ok) {
        --stream_->operations;
        Break();
        return;
      }
    }
    const absl::StatusOr<uint64_t> id = Rpc::Parse(received.get());
    Flight flight;
    bool read_first = false;
    {
      MutexLock lock(mu_);
      if (!id.ok()) {
        BreakUnreadable(id.status());
        return;
      }
      backoff_ = kFirstBackoff;
      // None is found where its calls have met their deadline.
      if (auto it = flights_.find(*id); it != flights_.end()) {
        flight = std::move(it->second);
        flights_.erase(it);
      }
      // A thread waits for these pages: they go first, unless a worker takes them.
      read_first = options_.deliver_on == DeliverOn::kWorker;
      if (read_first) stream_->receiving = TakeReceived();
    }
    if (read_first) {
      Read();
      threads_->Submit(
          [this, received = std::move(received), flight = std::move(flight)]() mutable {
            Deliver(std::move(received), std::move(flight));
          });
    } else {
      Deliver(std::move(received), std::move(flight));
      {
        MutexLock lock(mu_);
        stream_->receiving = TakeReceived();
      }
      Read();
    }
    Pump();
  }

  void Deliver(std::unique_ptr<Received> received, Flight flight) {
    Calls again;
    if (!flight.empty()) Rpc::Deliver(received.get(), absl::MakeSpan(flight), &again);
    flight.clear();
    Rpc::Release(received.get());
    const bool pump = !again.empty();
    Calls dropped;
    {
      MutexLock lock(mu_);
      if (shut_down_) {
        dropped.swap(again);
      } else {
        for (Call& call : again) waiting_.push_front(std::move(call));
      }
      if (received_.size() < kMaxIdleReceived) received_.push_back(std::move(received));
    }
    for (Call& call : dropped) call.End(ShutDownError());
    if (pump) Pump();
  }

  // The operation was counted before, or is the continuation of the one that has just completed;
  // nobody else touches `receiving` meanwhile.
  void Read() {
    Stream* stream;
    {
      MutexLock lock(mu_);
      stream = stream_.get();
    }
    stream->rpc->Read(&stream->receiving->message, &read_);
  }

  // A message that makes no sense: whom those after it would answer cannot be told either.
  void BreakUnreadable(absl::Status why) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    stream_->unreadable = std::move(why);
    stream_->context.TryCancel();  // the server does not know that it is over
    --stream_->operations;
    Break();
  }

  void Break() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    stream_->broken = true;
    FinishIfIdle();
  }

  void FinishIfIdle() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (stream_->operations > 0) return;
    stream_->operations = 1;
    stream_->rpc->Finish(&stream_->status, &finished_);
  }

  void OnFinished(bool) {
    Calls calls;
    absl::Status status;
    {
      MutexLock lock(mu_);
      status = WhyFinished();
      for (auto& [id, flight] : flights_) MoveInto(&calls, &flight);
      flights_.clear();
      MoveInto(&calls, &waiting_);
      waiting_.clear();
      stream_.reset();
      retry_at_ = absl::Now() + backoff_;
      backoff_ = std::min(backoff_ * 2, kLastBackoff);
    }
    for (Call& call : calls) call.End(status);
    MutexLock lock(mu_);
    idle_.SignalAll();
  }

  absl::Status WhyFinished() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (shut_down_) return ShutDownError();
    if (stream_->unreadable.ok()) return BrokenStreamError(stream_->status, options_.address);
    return absl::UnavailableError(absl::StrCat("cannot read what the page server at ",
                                               options_.address, " sent (",
                                               stream_->unreadable.message(),
                                               "); check that it is a faultline-server, and its "
                                               "version"));
  }

  // Sees to deadlines, and to the start of the next stream.
  void SetAlarm() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (shut_down_ || (waiting_.empty() && flights_.empty())) return;
    absl::Time at = absl::Now() + kDeadlineTick;
    if (stream_ == nullptr) at = std::min(at, retry_at_);
    if (!alarm_set_) {
      alarm_set_ = true;
      alarm_at_ = at;
      alarm_.Set(threads_->queue(), absl::ToChronoTime(at), &alarm_rang_);
    } else if (at < alarm_at_) {
      alarm_.Cancel();  // set again when that has come through
    }
  }

  void OnAlarm(bool) {
    Calls late;
    {
      MutexLock lock(mu_);
      alarm_set_ = false;
      const absl::Time now = absl::Now();
      TakeLate(now, &late);
      if (stream_ == nullptr && !waiting_.empty() && now >= retry_at_) StartStream();
      SetAlarm();
    }
    for (Call& call : late) {
      call.End(absl::DeadlineExceededError(
          absl::StrCat("page server ", options_.address, " did not answer within the deadline")));
    }
    MutexLock lock(mu_);
    if (shut_down_) idle_.SignalAll();
  }

  // Moves calls whose deadline has passed to `*late`. Those of a flight keep their place there,
  // without their callback, so that its response can still be told apart.
  void TakeLate(absl::Time now, Calls* late) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    const auto first_late = std::stable_partition(
        waiting_.begin(), waiting_.end(), [now](const Call& call) { return call.deadline > now; });
    for (auto it = first_late; it != waiting_.end(); ++it) late->push_back(std::move(*it));
    waiting_.erase_from(first_late);
    for (auto it = flights_.begin(); it != flights_.end();) {
      bool awaited = false;
      for (Call& call : it->second) {
        if (call.done != nullptr && call.deadline <= now) {
          late->emplace_back();
          late->back().done = std::exchange(call.done, nullptr);
        }
        awaited |= call.done != nullptr;
      }
      awaited ? static_cast<void>(++it) : flights_.erase(it++);
    }
  }

  // `Some` is a Flight or a CallQueue.
  template <typename Some>
  static void MoveInto(Calls* target, Some* calls) {
    for (Call& call : *calls) {
      if (call.done != nullptr) target->push_back(std::move(call));
    }
  }

  std::unique_ptr<Received> TakeReceived() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (received_.empty()) return std::make_unique<Received>();
    std::unique_ptr<Received> received = std::move(received_.back());
    received_.pop_back();
    return received;
  }

  // Constant after construction.
  CompletionThreads* const threads_;
  const Options options_;
  typename Rpc::Stub stub_;  // thread-safe
  Step started_{this, &RequestLane::OnStarted};
  Step written_{this, &RequestLane::OnWritten};
  Step read_{this, &RequestLane::OnRead};
  Step finished_{this, &RequestLane::OnFinished};
  Step alarm_rang_{this, &RequestLane::OnAlarm};

  Mutex mu_;
  CondVar idle_;
  CallQueue<Call> waiting_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<uint64_t, Flight> flights_ ABSL_GUARDED_BY(mu_);
  uint64_t next_id_ ABSL_GUARDED_BY(mu_) = 1;
  std::unique_ptr<Stream> stream_ ABSL_GUARDED_BY(mu_);
  std::vector<std::unique_ptr<Received>> received_ ABSL_GUARDED_BY(mu_);
  absl::Time retry_at_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();
  absl::Duration backoff_ ABSL_GUARDED_BY(mu_) = kFirstBackoff;
  grpc::Alarm alarm_ ABSL_GUARDED_BY(mu_);
  bool alarm_set_ ABSL_GUARDED_BY(mu_) = false;
  absl::Time alarm_at_ ABSL_GUARDED_BY(mu_);
  bool shut_down_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_REMOTE_REQUEST_LANE_H_
