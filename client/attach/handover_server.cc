// SPDX-License-Identifier: Apache-2.0
#include "client/attach/handover_server.h"

#include <absl/strings/str_cat.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <map>
#include <optional>
#include <thread>
#include <utility>

#include "client/attach/handover_message.h"
#include "client/attach/handover_socket.h"
#include "client/attach/json_text_splitter.h"
#include "client/attach/peer_process.h"
#include "proto/log.h"
#include "proto/mutex.h"

namespace faultline {
namespace {

using Clock = std::chrono::steady_clock;
using Kind = HandoverRequest::Kind;

constexpr size_t kReceiveBytes = size_t{64} << 10;
constexpr int kMaxEventsPerWait = 64;
// What epoll reports for what is no connection; connections count from kFirstConnection.
constexpr uint64_t kListeningSocket = 0;
constexpr uint64_t kWakeUp = 1;
constexpr uint64_t kFirstConnection = 2;
// After accept failed for want of descriptors or memory.
constexpr Clock::duration kAcceptPause = std::chrono::seconds(1);

struct Connection {
  UniqueFd socket;
  PeerProcess peer;
  absl::Status unwatchable;  // why `peer` has no pidfd
  JsonTextSplitter splitter{kMaxHandoverBytes};
  // Of the next handover; arrive with any byte of its text.
  std::vector<UniqueFd> descriptors;
  bool descriptors_lost = false;
  std::string output;  // what is left to send
  std::optional<AttachmentId> attachment;
  Clock::time_point deadline = Clock::time_point::max();
  uint32_t watched = 0;   // what epoll watches it for; 0: it is not watched
  bool answered = false;  // or attached: it has made one whole request
  bool busy = false;      // a worker has its request
  bool ended = false;     // the peer sends no more
  bool close_when_sent = false;
};

// Whether the peer of a text that is no handover is to be treated as a Firecracker that will hang:
// only where it has sent a descriptor. Somebody else's stray "[" must not get anybody killed.
bool MayHang(const Connection& c, bool firecracker) {
  return firecracker && !c.descriptors.empty();
}

class EpollHandoverServer : public HandoverServer {
 public:
  EpollHandoverServer(const HandoverServerOptions& options, ListeningSocket listening,
                      UniqueFd epoll, UniqueFd wake_up, Pager* pager, OpenSource open_source)
      : options_(options),
        epoll_(std::move(epoll)),
        wake_up_(std::move(wake_up)),
        listening_(std::move(listening)),
        workers_(options.workers, pager, std::move(open_source),
                 [this](HandoverOutcome outcome) { Post(std::move(outcome)); }) {
    Watch(wake_up_.get(), kWakeUp, EPOLLIN);
    SetAccepting(true);
    thread_ = std::thread([this] { Run(); });
    pthread_setname_np(thread_.native_handle(), "handover-io");
  }

  ~EpollHandoverServer() override {
    StopHandovers();
    {
      MutexLock lock(mu_);
      quit_ = true;
    }
    WakeUp();
    thread_.join();
  }

  void StopHandovers() override {
    {
      MutexLock lock(mu_);
      stop_accepting_ = true;
    }
    WakeUp();
    workers_.Stop();
  }

  void Adopt(LeftAttachment left) override { workers_.Adopt(std::move(left)); }

  uint64_t refused() const override { return refused_.load(std::memory_order_relaxed); }

 private:
  // From any thread.
  void Post(HandoverOutcome outcome);
  void WakeUp();

  // From here on: the I/O thread only.
  void Run();
  int MillisecondsToNextDeadline() const;
  bool TakePosted();  // false: quit
  void Watch(int fd, uint64_t id, uint32_t events);
  void SetAccepting(bool accepting);
  void Accept();
  void DropLate();
  void OnReadable(Connection& c);
  void Finish(uint64_t id, HandoverOutcome outcome);
  void Advance(uint64_t id);
  void OnText(uint64_t id, Connection& c, const std::string& text);
  void OnRequest(uint64_t id, Connection& c, HandoverRequest request);
  absl::Status CheckDescriptors(const Connection& c, const HandoverRequest& request) const;
  absl::Status CheckPermission(const Connection& c, const HandoverRequest& request) const;
  void OnEnd(Connection& c);
  void Refuse(Connection& c, bool firecracker, const absl::Status& reason);
  void Send(Connection& c);
  void RenewDeadline(Connection& c);
  void UpdateWatch(uint64_t id, Connection& c);

  const HandoverServerOptions options_;
  const UniqueFd epoll_;
  const UniqueFd wake_up_;  // an eventfd

  // State of the I/O thread.
  std::optional<ListeningSocket> listening_;
  std::map<uint64_t, Connection> connections_;
  uint64_t next_connection_ = kFirstConnection;
  bool accepting_ = false;
  std::atomic<uint64_t> refused_ = 0;  // changed by it alone
  Clock::time_point accept_again_ = Clock::time_point::max();

  Mutex mu_;
  std::vector<HandoverOutcome> posted_ ABSL_GUARDED_BY(mu_);
  bool stop_accepting_ ABSL_GUARDED_BY(mu_) = false;
  bool quit_ ABSL_GUARDED_BY(mu_) = false;

  // Post to the fields above, so they come after them.
  HandoverWorkers workers_;
  std::thread thread_;
};

void EpollHandoverServer::Post(HandoverOutcome outcome) {
  {
    MutexLock lock(mu_);
    posted_.push_back(std::move(outcome));
  }
  WakeUp();
}

void EpollHandoverServer::WakeUp() {
  const uint64_t one = 1;
  // It can only fail when the counter is full, and then the thread is awake anyway.
  [[maybe_unused]] const ssize_t n = write(wake_up_.get(), &one, sizeof one);
}

void EpollHandoverServer::Run() {
  std::array<epoll_event, kMaxEventsPerWait> events;
  while (true) {
    const int n =
        epoll_wait(epoll_.get(), events.data(), kMaxEventsPerWait, MillisecondsToNextDeadline());
    for (int i = 0; i < n; ++i) {
      const uint64_t id = events[i].data.u64;
      if (id == kWakeUp) {
        if (!TakePosted()) return;
      } else if (id == kListeningSocket) {
        Accept();
      } else if (const auto it = connections_.find(id); it != connections_.end()) {
        if ((it->second.watched & EPOLLOUT) != 0) {
          Send(it->second);
        } else {
          OnReadable(it->second);
        }
        Advance(id);
      }
    }
    DropLate();
    if (accept_again_ <= Clock::now()) SetAccepting(true);
  }
}

int EpollHandoverServer::MillisecondsToNextDeadline() const {
  Clock::time_point next = accept_again_;
  for (const auto& [id, c] : connections_) {
    if (!c.busy) next = std::min(next, c.deadline);
  }
  if (next == Clock::time_point::max()) return -1;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(next - Clock::now()).count();
  return static_cast<int>(std::clamp<int64_t>(left, 0, 3'600'000));
}

bool EpollHandoverServer::TakePosted() {
  uint64_t count;
  [[maybe_unused]] const ssize_t n = read(wake_up_.get(), &count, sizeof count);
  std::vector<HandoverOutcome> outcomes;
  bool stop_accepting;
  {
    MutexLock lock(mu_);
    if (quit_) return false;
    outcomes.swap(posted_);
    stop_accepting = stop_accepting_;
  }
  if (stop_accepting && listening_) {
    SetAccepting(false);
    accept_again_ = Clock::time_point::max();
    listening_.reset();
  }
  for (HandoverOutcome& outcome : outcomes) {
    const uint64_t id = outcome.connection;
    Finish(id, std::move(outcome));
    Advance(id);
  }
  return true;
}

void EpollHandoverServer::Watch(int fd, uint64_t id, uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = id;
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
    LogError(absl::StrCat("cannot watch a handover connection: ", strerror(errno)));
  }
}

void EpollHandoverServer::SetAccepting(bool accepting) {
  accept_again_ = Clock::time_point::max();
  if (!listening_ || accepting == accepting_) return;
  accepting_ = accepting;
  if (accepting) {
    Watch(listening_->fd(), kListeningSocket, EPOLLIN);
  } else {
    epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, listening_->fd(), nullptr);
  }
}

void EpollHandoverServer::Accept() {
  if (!listening_ || !accepting_) return;
  UniqueFd socket(accept4(listening_->fd(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!socket) {
    if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED) return;
    LogError(absl::StrCat("cannot accept a handover connection, trying again: ", strerror(errno)));
    SetAccepting(false);
    accept_again_ = Clock::now() + kAcceptPause;
    return;
  }
  const uint64_t id = next_connection_++;
  Connection& c = connections_[id];
  c.socket = std::move(socket);
  absl::StatusOr<PeerProcess> peer = PeerOf(c.socket.get());
  if (peer.ok()) {
    c.peer = *std::move(peer);
  } else {
    c.unwatchable = peer.status();
  }
  RenewDeadline(c);
  UpdateWatch(id, c);
  if (connections_.size() >= options_.max_connections) {
    LogWarning(absl::StrCat("no more than ", options_.max_connections,
                            " handover connections at once; others wait until one ends"));
    SetAccepting(false);
  }
}

void EpollHandoverServer::RenewDeadline(Connection& c) {
  c.deadline = c.answered && c.attachment && c.output.empty()
                   ? Clock::time_point::max()
                   : Clock::now() + absl::ToChronoNanoseconds(options_.handover_timeout);
}

void EpollHandoverServer::DropLate() {
  const Clock::time_point now = Clock::now();
  for (auto it = connections_.begin(); it != connections_.end();) {
    const uint64_t id = it->first;
    Connection& c = it->second;
    ++it;
    if (c.busy || c.deadline > now) continue;
    const std::string timeout = absl::FormatDuration(options_.handover_timeout);
    if (!c.output.empty()) {
      LogWarning(absl::StrCat(c.peer.Name(), " did not take its answer for ", timeout,
                              "; connection dropped"));
    } else if (c.splitter.begun() != 0) {
      const absl::Status reason = absl::DeadlineExceededError(
          absl::StrCat("only a part of a request, ", c.splitter.begun_bytes(),
                       " bytes, had come after ", timeout));
      Refuse(c, MayHang(c, c.splitter.begun() == '['), reason);
      Send(c);
    } else if (!c.answered) {
      LogWarning(absl::StrCat(c.peer.Name(), " connected and said nothing for ", timeout,
                              "; connection dropped"));
    }
    c.output.clear();
    c.ended = c.close_when_sent = true;
    Advance(id);
  }
}

void EpollHandoverServer::OnReadable(Connection& c) {
  std::array<char, kReceiveBytes> buffer;
  absl::StatusOr<std::optional<Received>> received =
      ReceiveWithDescriptors(c.socket.get(), buffer, kMaxHandoverDescriptors, &c.descriptors);
  if (received.ok() && !*received) return;
  if (!received.ok() || (*received)->bytes == 0) {
    c.ended = true;
    return;
  }
  c.splitter.Append(buffer.data(), (*received)->bytes);
  c.descriptors_lost |= (*received)->descriptors_lost;
}

void EpollHandoverServer::Finish(uint64_t id, HandoverOutcome outcome) {
  const auto it = connections_.find(id);
  if (it == connections_.end()) return;
  Connection& c = it->second;
  c.busy = false;
  c.answered = true;
  c.output = std::move(outcome.reply);
  if (outcome.attached) c.attachment = outcome.attached;
  if (outcome.detached) {
    c.attachment.reset();
    c.close_when_sent = true;
  }
  RenewDeadline(c);
  Send(c);
}

// Does what can be done now: serves what has arrived, closes what has ended.
void EpollHandoverServer::Advance(uint64_t id) {
  const auto it = connections_.find(id);
  if (it == connections_.end()) return;
  Connection& c = it->second;
  while (!c.busy && c.output.empty() && !c.close_when_sent) {
    std::string text;
    const JsonTextSplitter::Result result = c.splitter.Next(&text);
    if (result == JsonTextSplitter::Result::kText) {
      OnText(id, c, text);
    } else if (result == JsonTextSplitter::Result::kNotJson) {
      Refuse(
          c, /*firecracker=*/false,
          absl::InvalidArgumentError("a request is a JSON object or array; something else came"));
    } else if (result == JsonTextSplitter::Result::kTooLong) {
      Refuse(c, MayHang(c, c.splitter.begun() == '['),
             absl::InvalidArgumentError(
                 absl::StrCat("a request has more than ", kMaxHandoverBytes, " bytes")));
    } else {
      if (c.ended) OnEnd(c);
      break;
    }
  }
  const bool over = c.close_when_sent || c.ended;
  if (!c.busy && c.output.empty() && over) {
    if (c.watched != 0) epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, c.socket.get(), nullptr);
    connections_.erase(it);
    SetAccepting(connections_.size() < options_.max_connections);
    return;
  }
  UpdateWatch(id, c);
}

void EpollHandoverServer::OnText(uint64_t id, Connection& c, const std::string& text) {
  absl::StatusOr<HandoverRequest> request = ParseHandover(text);
  if (request.ok()) {
    OnRequest(id, c, *std::move(request));
  } else {
    Refuse(c, MayHang(c, IsFirecrackerForm(text)), request.status());
  }
}

void EpollHandoverServer::OnRequest(uint64_t id, Connection& c, HandoverRequest request) {
  const bool firecracker = request.kind == Kind::kFirecracker;
  if (absl::Status status = CheckPermission(c, request); !status.ok()) {
    refused_.fetch_add(1, std::memory_order_relaxed);
    Refuse(c, firecracker && !c.descriptors.empty(), status);
    return;
  }
  HandoverJob job;
  if (firecracker || request.kind == Kind::kAttach) {
    const absl::Status status = CheckDescriptors(c, request);
    if (!status.ok()) {
      Refuse(c, firecracker, status);
      return;
    }
    job.uffd = std::move(c.descriptors.front());
    if (request.pidfd) {
      absl::StatusOr<PeerProcess> target =
          HandoverTarget(c.peer, std::move(c.descriptors[1 + *request.pidfd]));
      if (!target.ok()) {
        Refuse(c, firecracker, target.status());
        return;
      }
      job.peer = *std::move(target);
    }
    job.further.assign(std::make_move_iterator(c.descriptors.begin() + 1),
                       std::make_move_iterator(c.descriptors.end()));
    c.descriptors.clear();
  } else if (request.kind == Kind::kDetach && !c.attachment && !request.attachment) {
    Refuse(c, false, absl::FailedPreconditionError("this connection has no attachment to detach"));
    return;
  }
  job.connection = id;
  job.attachment = request.attachment ? request.attachment : c.attachment;
  job.request = std::move(request);
  if (c.peer.pidfd && !job.peer.pidfd) {
    absl::StatusOr<PeerProcess> peer = c.peer.Duplicate();
    if (!peer.ok()) {
      Refuse(c, firecracker, peer.status());
      return;
    }
    job.peer = *std::move(peer);
  }
  c.busy = true;
  workers_.Submit(std::move(job));
}

// Before anything is asked of the page server, so that the answer tells nothing of the volume.
absl::Status EpollHandoverServer::CheckPermission(const Connection& c,
                                                  const HandoverRequest& request) const {
  const VolumePermissions& permissions = options_.workers.permissions;
  switch (request.kind) {
    case Kind::kQueryAttachments:  // its answer has only what the peer may see
    case Kind::kDetach:            // by the attachment's own process only
      return absl::OkStatus();
    case Kind::kFirecracker:
      return permissions.Check(c.peer, options_.workers.volume);
    case Kind::kFarCommand:
      if (request.command.kind != FarCommand::Kind::kCheckpoint) return absl::OkStatus();
      return permissions.Check(c.peer, request.command.snapshot);
    case Kind::kQueryVolume:
    case Kind::kAttach:
      break;
  }
  if (request.far && request.far->new_volume && !request.far->new_volume->snapshot.empty()) {
    absl::Status status = permissions.Check(c.peer, request.far->new_volume->snapshot);
    if (!status.ok()) return status;
  }
  return permissions.Check(c.peer, request.volume);
}

// Also what else must be so before a handover is worth a worker's time.
absl::Status EpollHandoverServer::CheckDescriptors(const Connection& c,
                                                   const HandoverRequest& request) const {
  if (!c.unwatchable.ok()) return c.unwatchable;
  if (c.descriptors_lost) {
    return absl::ResourceExhaustedError(
        "descriptors of the handover were lost, because the agent may not have more; raise its "
        "limit of open files (LimitNOFILE)");
  }
  if (c.descriptors.empty()) {
    return absl::InvalidArgumentError(
        "no descriptor came with the handover; send the userfaultfd by SCM_RIGHTS");
  }
  if (request.kind == Kind::kFirecracker) {
    if (!options_.workers.volume.empty()) return absl::OkStatus();
    return absl::FailedPreconditionError(
        "this socket has no volume for handovers that name none; start the agent with --volume");
  }
  if (c.attachment) {
    return absl::FailedPreconditionError(absl::StrCat(
        "this connection has attachment ", *c.attachment, "; use another connection for a second"));
  }
  const size_t further = c.descriptors.size() - 1;
  const size_t named = request.further_descriptors;
  if (further == named) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      further, " descriptors came after the userfaultfd, but the request names ", named,
      further > named ? "; send no others" : "; send one for each \"memfd\" and \"pidfd\""));
}

void EpollHandoverServer::OnEnd(Connection& c) {
  if (c.splitter.begun() != 0) {
    Refuse(c, MayHang(c, c.splitter.begun() == '['),
           absl::InvalidArgumentError(
               absl::StrCat("the connection ended in the middle of a request, after ",
                            c.splitter.begun_bytes(), " bytes")));
  } else if (!c.descriptors.empty()) {
    LogWarning(absl::StrCat(c.peer.Name(), " sent a descriptor and no handover"));
  }
}

// Ends the connection for want of a proper request; see HandoverWorkers::GiveUp for `firecracker`.
void EpollHandoverServer::Refuse(Connection& c, bool firecracker, const absl::Status& reason) {
  c.close_when_sent = true;
  c.descriptors.clear();
  if (firecracker) {
    workers_.GiveUp(c.peer, reason);
    return;
  }
  LogWarning(absl::StrCat("request of ", c.peer.Name(), " refused: ", reason.message()));
  c.output = ErrorReply(reason.message());
  RenewDeadline(c);
  Send(c);
}

void EpollHandoverServer::Send(Connection& c) {
  while (!c.output.empty()) {
    const ssize_t n = send(c.socket.get(), c.output.data(), c.output.size(), MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return;
    if (n < 0) {
      c.output.clear();
      c.ended = true;
      return;
    }
    c.output.erase(0, static_cast<size_t>(n));
  }
  RenewDeadline(c);
}

void EpollHandoverServer::UpdateWatch(uint64_t id, Connection& c) {
  // Nothing is read while a request is under way or its answer not taken, so a peer cannot make the
  // agent hold more than one. Level-triggered: what cannot be acted on must not be watched.
  uint32_t wanted = 0;
  if (!c.output.empty()) {
    wanted = EPOLLOUT;
  } else if (!c.busy) {
    wanted = EPOLLIN;
  }
  if (wanted == c.watched) return;
  if (c.watched != 0) epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, c.socket.get(), nullptr);
  c.watched = wanted;
  if (wanted != 0) Watch(c.socket.get(), id, wanted);
}

}  // namespace

absl::StatusOr<std::unique_ptr<HandoverServer>> HandoverServer::Start(
    const HandoverServerOptions& options, Pager* pager, OpenSource open_source) {
  UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  UniqueFd wake_up(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!epoll || !wake_up) {
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot start the handover server: ", strerror(errno)));
  }
  absl::StatusOr<ListeningSocket> listening =
      options.passed_sockets.empty()
          ? ListeningSocket::Open(options.socket_path, options.socket_mode, options.socket_owner)
          : ListeningSocket::TakeOver(options.passed_sockets, options.socket_path);
  if (!listening.ok()) return listening.status();
  return std::make_unique<EpollHandoverServer>(options, *std::move(listening), std::move(epoll),
                                               std::move(wake_up), pager, std::move(open_source));
}

}  // namespace faultline
