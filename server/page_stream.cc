// SPDX-License-Identifier: Apache-2.0
#include "server/page_stream.h"

#include <utility>

#include "server/rpc_status.h"
#include "server/unary_call.h"

namespace faultline {

void PageStream::OnCall() {
  account_ = OnOpen();
  const bool added = environment_.calls->Add(this);
  absl::Status status = added ? account_->OpenStream() : DrainingError();
  counted_ = status.ok();
  bool finish = false;
  {
    MutexLock lock(mu_);
    if (status.ok()) {
      ReadNext();
    } else {
      End(std::move(status));
      finish = TakeFinish();
    }
  }
  if (finish) FinishWithStatus();
}

void PageStream::ReadNext() {
  if (!ending_) StartRead(&incoming_);
}

void PageStream::OnReadDone(bool ok) {
  absl::StatusOr<std::unique_ptr<StreamRequest>> parsed = std::unique_ptr<StreamRequest>();
  if (ok) parsed = Parse(&incoming_);
  std::unique_ptr<StreamRequest> begun;
  bool finish = false;
  {
    MutexLock lock(mu_);
    if (!ok) {
      // The client has no more requests, or the connection broke, of which OnCancel tells.
      End(absl::OkStatus());
    } else if (!parsed.ok()) {
      End(parsed.status());
    } else if (!broken_ && !finished_) {
      next_ = *std::move(parsed);
      if (Admit()) begun = Begin();
    }
    finish = TakeFinish();
  }
  if (begun != nullptr) Dispatch(std::move(begun));
  if (finish) FinishWithStatus();
}

bool PageStream::Admit() {
  const uint64_t pages = next_->pages();
  // A stream with nothing under way may always have one request, however large.
  if (pages_ > 0 && pages_ + pages > environment_.max_pages_per_stream) return false;
  if (environment_.window->Take(pages, next_->lane(), account_->pages(), this)) return true;
  in_window_ = true;
  return false;
}

std::unique_ptr<StreamRequest> PageStream::Begin() {
  ++requests_;
  pages_ += next_->pages();
  dispatching_ = true;
  return std::move(next_);
}

void PageStream::OnAdmitted() {
  std::unique_ptr<StreamRequest> begun;
  uint64_t unused = 0;
  bool finish = false;
  {
    MutexLock lock(mu_);
    in_window_ = false;
    if (broken_) {
      unused = next_->pages();
      next_.reset();
      finish = TakeFinish();
    } else {
      begun = Begin();
    }
  }
  PageWindow* const window = environment_.window;
  const std::shared_ptr<ClientAccount> account = account_;
  if (begun != nullptr) Dispatch(std::move(begun));
  if (finish) FinishWithStatus();
  if (unused > 0) window->Give(unused, account->pages());
}

void PageStream::Dispatch(std::unique_ptr<StreamRequest> request) {
  const uint64_t pages = request->pages();
  if (request->lane() == RequestLane::kDemand) {
    if (loop()->IsCurrent()) {
      in_turn_ = std::move(request);
      loop()->TakeTurn(account_->id(), pages, this);
      return;
    }
    AnswerHere(std::move(request));
  } else {
    AnswerBy(environment_.workers, std::move(request));
  }
  GoOn();
}

void PageStream::AnswerBy(WorkerPool* workers, std::unique_ptr<StreamRequest> request) {
  const uint64_t pages = request->pages();
  // Shared with the task, because a task that is not taken is dropped.
  std::shared_ptr<StreamRequest> shared = std::move(request);
  const bool taken = workers->Submit(account_->id(), pages, [this, shared, pages]() mutable {
    grpc::ByteBuffer answer;
    const absl::Status status = shared->Answer(&answer);
    // Its memory goes before its pages are given back.
    shared.reset();
    Deliver(pages, status, &answer);
  });
  if (taken) return;
  grpc::ByteBuffer answer;
  const absl::Status status = shared->Refuse(
      absl::ResourceExhaustedError("too many requests wait in the server; try again"), &answer);
  Deliver(pages, status, &answer);
}

void PageStream::OnTurn() {
  AnswerHere(std::move(in_turn_));
  GoOn();
}

void PageStream::AnswerHere(std::unique_ptr<StreamRequest> request) {
  grpc::ByteBuffer answer;
  absl::Status status;
  if (environment_.readers == nullptr) {
    status = request->Answer(&answer);
  } else if (!request->AnswerAtHand(&answer)) {
    AnswerBy(environment_.readers, std::move(request));
    return;
  }
  Deliver(request->pages(), status, &answer);
}

void PageStream::GoOn() {
  bool finish = false;
  {
    MutexLock lock(mu_);
    dispatching_ = false;
    ReadNext();
    finish = TakeFinish();
  }
  if (finish) FinishWithStatus();
}

void PageStream::Deliver(uint64_t pages, const absl::Status& status, grpc::ByteBuffer* answer) {
  // Taken before anything else: once the stream has no request left it may end at any moment.
  PageWindow* const window = environment_.window;
  const std::shared_ptr<ClientAccount> account = account_;
  bool write = false;
  bool finish = false;
  uint64_t unused = 0;
  {
    MutexLock lock(mu_);
    if (!status.ok()) {
      End(status);
      // One that waits for pages of this stream would be woken by an answer sent, and this is none.
      if (!in_window_) next_.reset();
    }
    if (!status.ok() || broken_) {
      --requests_;
      pages_ -= pages;
      unused = pages;
      finish = TakeFinish();
    } else if (writing_) {
      answers_.emplace_back().message.Swap(answer);
      answers_.back().pages = pages;
    } else {
      writing_ = write = true;
      sending_.message.Swap(answer);
      sending_.pages = pages;
    }
  }
  if (write) StartWrite(sending_.message);
  if (finish) FinishWithStatus();
  if (unused > 0) window->Give(unused, account->pages());
}

void PageStream::OnWriteDone(bool ok) {
  std::unique_ptr<StreamRequest> begun;
  uint64_t unused = 0;
  bool write = false;
  bool finish = false;
  {
    MutexLock lock(mu_);
    writing_ = false;
    --requests_;
    pages_ -= sending_.pages;
    unused = sending_.pages;
    sending_.message.Clear();
    if (!ok) {
      unused += Break();
    } else if (!answers_.empty()) {
      sending_.message.Swap(&answers_.front().message);
      sending_.pages = answers_.front().pages;
      answers_.pop_front();
      writing_ = write = true;
    }
    if (next_ != nullptr && !in_window_ && Admit()) begun = Begin();
    finish = TakeFinish();
  }
  if (write) StartWrite(sending_.message);
  environment_.window->Give(unused, account_->pages());
  if (begun != nullptr) Dispatch(std::move(begun));
  if (finish) FinishWithStatus();
}

void PageStream::OnCancel() {
  uint64_t unused = 0;
  bool finish = false;
  {
    MutexLock lock(mu_);
    unused = Break();
    finish = TakeFinish();
  }
  if (unused > 0) environment_.window->Give(unused, account_->pages());
  if (finish) FinishWithStatus();
}

uint64_t PageStream::Break() {
  broken_ = true;
  End(absl::CancelledError("the stream was cancelled"));
  // One that the window has already admitted is on its way to OnAdmitted().
  if (next_ != nullptr && (!in_window_ || environment_.window->Cancel(this))) {
    in_window_ = false;
    next_.reset();
  }
  uint64_t unused = 0;
  for (const Outgoing& answer : answers_) unused += answer.pages;
  requests_ -= answers_.size();
  pages_ -= unused;
  answers_.clear();
  return unused;
}

void PageStream::Drain() {
  bool finish = false;
  {
    MutexLock lock(mu_);
    End(DrainingError());
    finish = TakeFinish();
  }
  if (finish) FinishWithStatus();
}

void PageStream::End(absl::Status status) {
  if (ending_) return;
  ending_ = true;
  final_status_ = std::move(status);
}

bool PageStream::TakeFinish() {
  if (!ending_ || finished_ || dispatching_ || requests_ > 0 || next_ != nullptr) return false;
  finished_ = true;
  return true;
}

void PageStream::FinishWithStatus() {
  grpc::Status status;
  {
    MutexLock lock(mu_);
    status = ToRpcStatus(final_status_);
  }
  Finish(status);
}

void PageStream::OnDone() {
  if (counted_) account_->CloseStream();
  environment_.calls->Remove(this);
  delete this;
}

}  // namespace faultline
