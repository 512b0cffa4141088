// SPDX-License-Identifier: Apache-2.0
//
// For benchmarks of servers: a server of this machine with one volume, which is read and written as
// an agent does. What fails ends the process.
#ifndef FAULTLINE_CLIENT_BENCH_SERVED_VOLUME_H_
#define FAULTLINE_CLIENT_BENCH_SERVED_VOLUME_H_

#include <absl/strings/str_cat.h>
#include <absl/time/clock.h>

#include <array>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "client/bench/child_process.h"
#include "client/bench/local_stack.h"
#include "client/bench/page_content.h"
#include "client/remote/admin_client.h"
#include "client/remote/page_server.h"

namespace faultline::bench {

inline void Require(const absl::Status& status, const std::string& what) {
  if (status.ok()) return;
  fprintf(stderr, "%s: %s\n", what.c_str(), status.ToString().c_str());
  exit(1);
}

inline TemporaryDirectory MakeDirectory(const std::string& parent) {
  auto directory = TemporaryDirectory::Create(parent);
  Require(directory.status(), "making a directory");
  return *std::move(directory);
}

inline std::unique_ptr<PageServer> Reach(const std::string& address) {
  auto server = PageServer::Create({.address = address});
  Require(server.status(), "reaching " + address);
  return *std::move(server);
}

// The faultline-server that lies beside this program.
class ServerProcess {
 public:
  // Listens at unix:PATH, with further flags.
  ServerProcess(const std::string& path, const std::vector<std::string>& flags)
      : address_("unix:" + path) {
    const std::string program =
        std::filesystem::read_symlink("/proc/self/exe").parent_path() / "faultline-server";
    std::vector<std::string> argv = {program, "--listen=" + address_};
    argv.insert(argv.end(), flags.begin(), flags.end());
    auto process = ChildProcess::Start(argv, {}, {}, ChildProcess::TlsVariables::kDropped);
    Require(process.status(), "starting a server");
    process_ = *std::move(process);
  }

  const std::string& address() const { return address_; }
  pid_t pid() const { return process_.pid(); }

 private:
  const std::string address_;
  ChildProcess process_;
};

// Of a server of its own. Not thread-safe.
class ServedVolume {
 public:
  static constexpr char kName[] = "benchmark";

  ServedVolume(const std::string& path, const std::vector<std::string>& flags, uint64_t pages)
      : process_(path, flags) {
    PageContent().Fill(PageIndex(0), page_.data());
    const std::string& address = process_.address();
    auto admin = AdminClient::Create({.address = address, .call_timeout = absl::Seconds(20)});
    Require(admin.status(), "reaching the server");
    rpc::CreateVolumeRequest request;
    request.set_name(kName);
    request.set_size_bytes(pages * kPageSize);
    absl::Status created;
    for (int i = 0; i < 100 && (i == 0 || !created.ok()); ++i) {
      created = (*admin)->CreateVolume(request).status();
      if (!created.ok()) std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
    Require(created, "making the volume");
    server_ = Reach(address);
    auto io = server_->OpenVolumeIo(kName, absl::Now() + absl::Seconds(20));
    Require(io.status(), "opening the volume");
    io_ = *std::move(io);
    for (uint64_t first = 0; first < pages; first += 64) {
      std::vector<uint64_t> all;
      for (uint64_t page = first; page < first + 64 && page < pages; ++page) all.push_back(page);
      Write(all);
    }
  }

  void Read(uint64_t first, uint64_t count) const {
    std::promise<absl::Status> read;
    io_.source->Fetch({PageIndex(first), PageCount(count)}, FetchLane::kDemand,
                      absl::Now() + absl::Seconds(20),
                      [&](absl::StatusOr<std::span<const FetchedRun>> runs) {
                        if (runs.ok() && runs->front().bytes == nullptr) {
                          return read.set_value(absl::DataLossError("zeros"));
                        }
                        read.set_value(runs.status());
                      });
    Require(read.get_future().get(), "reading");
  }
  void Write(const std::vector<uint64_t>& pages) const {
    std::vector<PageToWrite> writes;
    for (const uint64_t page : pages) writes.push_back({PageIndex(page), page_.data()});
    std::promise<absl::Status> written;
    io_.sink->Write(writes, absl::Now() + absl::Seconds(20),
                    [&](absl::Status status) { written.set_value(std::move(status)); });
    Require(written.get_future().get(), "writing");
  }

 private:
  ServerProcess process_;
  std::array<std::byte, kPageSize> page_;
  std::unique_ptr<PageServer> server_;
  VolumeIo io_;
};

}  // namespace faultline::bench

#endif  // FAULTLINE_CLIENT_BENCH_SERVED_VOLUME_H_
