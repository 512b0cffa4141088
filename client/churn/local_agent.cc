// SPDX-License-Identifier: Apache-2.0
#include "client/churn/local_agent.h"

#include <utility>

#include "client/attach/handover_server.h"
#include "client/source/injector.h"
#include "client/source/memory_page_source.h"
#include "client/timers.h"
#include "proto/log.h"

namespace faultline::churn {
namespace {

// Answers each fetch on one of some threads.
class ThreadedSource final : public PageSource {
 public:
  // `threads` are borrowed and outlive the last fetch.
  ThreadedSource(std::shared_ptr<PageSource> inner, Timers* threads)
      : inner_(std::move(inner)), threads_(threads) {}

  void Fetch(PageRange range, FetchLane lane, absl::Time deadline, FetchDone done) override {
    threads_->After(SteadyClock::duration(0),
                    [inner = inner_, range, lane, deadline, done = std::move(done)]() mutable {
                      inner->Fetch(range, lane, deadline, std::move(done));
                    });
  }
  PageCount size() const override { return inner_->size(); }
  PageCount max_fetch() const override { return inner_->max_fetch(); }

 private:
  const std::shared_ptr<PageSource> inner_;
  Timers* const threads_;
};

class InProcess final : public LocalAgent {
 public:
  explicit InProcess(int fill_threads) : fill_threads_(fill_threads) {}

  ~InProcess() override {
    if (handovers_ != nullptr) handovers_->StopHandovers();
    if (pager_ != nullptr) pager_->Stop();
  }

  absl::Status Listen(const LocalAgentOptions& options, std::string content) {
    absl::StatusOr<std::unique_ptr<Pager>> pager = Pager::Create(options.pager);
    if (!pager.ok()) return pager.status();
    pager_ = *std::move(pager);
    std::shared_ptr<PageSource> source = std::make_shared<ThreadedSource>(
        std::make_shared<MemoryPageSource>(std::move(content)), &fill_threads_);
    if (options.injection.any()) {
      source = Injector(options.injection, &delays_).Around(std::move(source));
    }
    HandoverServerOptions listen;
    listen.socket_path = options.socket;
    listen.workers.attachment.prefetch = options.prefetch;
    absl::StatusOr<std::unique_ptr<HandoverServer>> handovers = HandoverServer::Start(
        listen, pager_.get(),
        [source](absl::string_view, absl::Time) -> absl::StatusOr<std::shared_ptr<PageSource>> {
          return source;
        });
    if (!handovers.ok()) return handovers.status();
    handovers_ = *std::move(handovers);
    return absl::OkStatus();
  }

 private:
  // Each uses those before it.
  ThreadTimers fill_threads_;
  ThreadTimers delays_;
  std::unique_ptr<Pager> pager_;
  std::unique_ptr<HandoverServer> handovers_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<LocalAgent>> LocalAgent::Start(const LocalAgentOptions& options,
                                                              std::string content) {
  InitLog("faultline churn", LogLevel::kWarning);
  auto agent = std::make_unique<InProcess>(options.fill_threads);
  absl::Status status = agent->Listen(options, std::move(content));
  if (!status.ok()) return status;
  return agent;
}

}  // namespace faultline::churn
