// SPDX-License-Identifier: Apache-2.0
#include "proto/tls_files_watch.h"

#include <absl/strings/str_cat.h>
#include <sys/stat.h>

#include <chrono>

#include "proto/log.h"

namespace faultline {

TlsFilesWatch::TlsFilesWatch(const TlsFiles& files)
    : files_(files), seen_(State()), judged_(seen_), thread_([this] { Run(); }) {}

TlsFilesWatch::~TlsFilesWatch() {
  {
    MutexLock lock(mu_);
    stop_ = true;
    stopped_.SignalAll();
  }
  thread_.join();
}

std::string TlsFilesWatch::State() const {
  std::string state;
  for (const std::string& path : {files_.ca, files_.certificate, files_.key}) {
    struct stat file = {};
    const int error = stat(path.c_str(), &file);
    absl::StrAppend(&state, error, " ", file.st_dev, " ", file.st_ino, " ", file.st_size, " ",
                    file.st_mtim.tv_sec, " ", file.st_mtim.tv_nsec, "; ");
  }
  return state;
}

void TlsFilesWatch::Run() {
  MutexLock lock(mu_);
  while (!stop_) {
    const auto next =
        std::chrono::steady_clock::now() + std::chrono::seconds(files_.reload_seconds);
    while (!stop_ && std::chrono::steady_clock::now() < next) stopped_.WaitUntil(mu_, next);
    if (!stop_) Look();
  }
}

void TlsFilesWatch::Look() {
  // Three files are not replaced at once: what is still changing is looked at the next time.
  const std::string state = State();
  const bool settled = state == seen_;
  seen_ = state;
  if (!settled || state == judged_) return;
  judged_ = state;
  const absl::Status status = CheckTlsFiles(files_);
  if (!status.ok()) {
    LogWarning(absl::StrCat("new TLS files are no good, so that connections will fail: ",
                            status.message()));
  } else if (!good_) {
    LogInfo("the TLS files are good again");
  }
  good_ = status.ok();
}

}  // namespace faultline
