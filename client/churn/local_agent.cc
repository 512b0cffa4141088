// SPDX-License-Identifier: Apache-2.0
#include "client/churn/local_agent.h"

#include <utility>

#include "client/attach/handover_server.h"
#include "client/source/memory_page_source.h"
#include "client/timers.h"
#include "proto/log.h"

namespace faultline::churn {
namespace {

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
    // Each fetch is answered by one of the fill threads: at once, but for those that are held up.
    std::shared_ptr<PageSource> source = DelayFetches(
        std::make_shared<MemoryPageSource>(std::move(content)), FetchDelay(), &fill_threads_);
    if (options.delay.delay > absl::ZeroDuration()) {
      source = DelayFetches(std::move(source), options.delay, &delays_);
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
