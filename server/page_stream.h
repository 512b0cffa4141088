// SPDX-License-Identifier: Apache-2.0
//
// PageStream: one bidirectional stream of requests and answers, Fetch or Write. It knows about
// reading, admission, threads, sending and ending; what a request means is its StreamRequest's
// business.
//
// A typical flow:
//   - a message is read and parsed into a StreamRequest
//   - the request takes its pages from the window; while it waits for them nothing else is read
//   - a demand request is answered on the thread that read it, as soon as it is its client's turn;
//     a bulk one by a worker, in turn as well
//   - the next message is read while a worker has a bulk request, so several of those of a stream
//     overlap
//   - answers are sent one at a time, as they become ready; then their pages are given back
#ifndef FAULTLINE_SERVER_PAGE_STREAM_H_
#define FAULTLINE_SERVER_PAGE_STREAM_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <grpcpp/support/byte_buffer.h>

#include <cstdint>
#include <deque>
#include <memory>

#include "proto/mutex.h"
#include "server/byte_stream.h"
#include "server/call_set.h"
#include "server/client_account.h"
#include "server/page_window.h"
#include "server/worker_pool.h"

namespace faultline {

// One request of a stream. Used by one thread at a time.
class StreamRequest {
 public:
  StreamRequest(uint64_t pages, RequestLane lane) : pages_(pages), lane_(lane) {}
  virtual ~StreamRequest() = default;

  // What the request and its answer take in memory.
  uint64_t pages() const { return pages_; }
  RequestLane lane() const { return lane_; }

  // Does the work and makes the message to be sent back, which also tells of an error of this
  // request. An error here is one of the stream, which ends with it.
  virtual absl::Status Answer(grpc::ByteBuffer* answer) = 0;
  // The same, where nothing that is on other machines is waited for; else false.
  virtual bool AnswerAtHand(grpc::ByteBuffer* answer) { return Answer(answer).ok(); }
  // Makes the message that says that the request failed with `status` and was not begun.
  virtual absl::Status Refuse(const absl::Status& status, grpc::ByteBuffer* answer) = 0;

 private:
  const uint64_t pages_;
  const RequestLane lane_;
};

// Owns itself, see ByteStream.
class PageStream : public ByteStream,
                   private CallSet::Call,
                   private CallLoop::Turn,
                   private PageWindow::Waiter {
 public:
  // All borrowed; they outlive every stream.
  struct Environment {
    CallLoop* loop;
    PageWindow* window;
    WorkerPool* workers;
    WorkerPool* readers;  // for what a fault waits for and is not at hand; null: all of it is
    CallSet* calls;
    // What the requests of one stream may take together, so that a client that does not read its
    // answers cannot take the whole window.
    uint64_t max_pages_per_stream;
  };

  explicit PageStream(const Environment& environment)
      : ByteStream(environment.loop), environment_(environment) {}

 protected:
  // A client has called; another stream may be made to wait for the next one. Returns whose it is.
  virtual std::shared_ptr<ClientAccount> OnOpen() = 0;
  // Makes a request of what was read. An error ends the stream. Called by one thread at a time.
  virtual absl::StatusOr<std::unique_ptr<StreamRequest>> Parse(grpc::ByteBuffer* message) = 0;

 private:
  struct Outgoing {
    grpc::ByteBuffer message;
    uint64_t pages = 0;
  };

  // ByteStream.
  void OnCall() override;
  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;
  // CallSet::Call.
  void Drain() override;
  // CallLoop::Turn.
  void OnTurn() override;
  // PageWindow::Waiter.
  void OnAdmitted() override;

  // Tries to take the pages of next_; where that works, the request is under way.
  bool Admit() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::unique_ptr<StreamRequest> Begin() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Has `request` answered, here or by a worker, and reads on. REQUIRES: Begin() returned it.
  void Dispatch(std::unique_ptr<StreamRequest> request);
  // Or, where that would have to wait for other machines, by one of the readers.
  void AnswerHere(std::unique_ptr<StreamRequest> request);
  void AnswerBy(WorkerPool* workers, std::unique_ptr<StreamRequest> request);
  void GoOn();
  // Takes the answer of a request. `this` may be gone afterwards, unless something else holds it.
  void Deliver(uint64_t pages, const absl::Status& status, grpc::ByteBuffer* answer);
  void ReadNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // No more is read; the stream ends with `status` when nothing is under way any more. The first
  // call decides.
  void End(absl::Status status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Nothing more can be sent: drops what waits and returns how many pages are to be given back.
  [[nodiscard]] uint64_t Break() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Whether the caller has to call FinishWithStatus(), without the lock, as the last thing it does.
  [[nodiscard]] bool TakeFinish() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void FinishWithStatus();

  const Environment environment_;
  // Constant after OnCall().
  std::shared_ptr<ClientAccount> account_;
  bool counted_ = false;  // among the streams of the account

  // The demand request that waits for its turn. Of the loop's thread.
  std::unique_ptr<StreamRequest> in_turn_;

  // Belong to the one read and the one write that may be under way.
  grpc::ByteBuffer incoming_;
  Outgoing sending_;

  // Before PageWindow's lock. Not held while a message is sent or a request answered.
  Mutex mu_;
  // Read, but not admitted: it waits in the window (in_window_), for this stream's own pages, or is
  // just being looked at.
  std::unique_ptr<StreamRequest> next_ ABSL_GUARDED_BY(mu_);
  bool in_window_ ABSL_GUARDED_BY(mu_) = false;
  // From Begin() until it is read on: somebody still uses the stream.
  bool dispatching_ ABSL_GUARDED_BY(mu_) = false;
  uint64_t requests_ ABSL_GUARDED_BY(mu_) = 0;  // begun, answers not sent
  uint64_t pages_ ABSL_GUARDED_BY(mu_) = 0;     // of those
  std::deque<Outgoing> answers_ ABSL_GUARDED_BY(mu_);
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  bool broken_ ABSL_GUARDED_BY(mu_) = false;
  bool ending_ ABSL_GUARDED_BY(mu_) = false;
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
  absl::Status final_status_ ABSL_GUARDED_BY(mu_);
};

}  // namespace faultline

#endif  // FAULTLINE_SERVER_PAGE_STREAM_H_
