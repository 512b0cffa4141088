// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_PROTO_TLS_FILES_WATCH_H_
#define FAULTLINE_PROTO_TLS_FILES_WATCH_H_

#include <atomic>
#include <string>
#include <thread>

#include "proto/mutex.h"
#include "proto/tls_files.h"

namespace faultline {

// Looks at the TLS files of a program as often as gRPC does, which tells nobody where new ones are
// no good: connections that are made from then on fail. Logs a warning for each change that leaves
// files which are no good, and when they are good again. Thread-safe.
class TlsFilesWatch {
 public:
  // REQUIRES: CheckTlsFiles(files) has just succeeded, and some are given.
  explicit TlsFilesWatch(const TlsFiles& files);
  ~TlsFilesWatch();
  TlsFilesWatch(const TlsFilesWatch&) = delete;
  TlsFilesWatch& operator=(const TlsFilesWatch&) = delete;

  // Whether the files were good at the last look.
  bool good() const { return good_; }

 private:
  // Which files there are; differs where one has changed.
  std::string State() const;
  void Run();
  void Look();

  const TlsFiles files_;
  std::string seen_, judged_;  // of Run() only: the state at the last look, and that of `good_`
  std::atomic<bool> good_ = true;
  Mutex mu_;
  CondVar stopped_;
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;  // last: it uses the others
};

}  // namespace faultline

#endif  // FAULTLINE_PROTO_TLS_FILES_WATCH_H_
