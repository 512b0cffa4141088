// SPDX-License-Identifier: Apache-2.0
#include "client/vm/ram_server.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_split.h>
#include <absl/time/clock.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <system_error>
#include <utility>
#include <vector>

#include "client/bench/local_stack.h"

namespace faultline {
namespace {

constexpr absl::Duration kRestartInterval = absl::Seconds(2);
constexpr int kStartTimeField = 20;  // of /proc/PID/stat, counted from the state, which is 1

std::string ReadFile(const std::string& path) {
  std::ostringstream content;
  content << std::ifstream(path).rdbuf();
  return content.str();
}

}  // namespace

absl::StatusOr<std::string> RamVolumeName(pid_t pid) {
  const std::string boot = ReadFile("/proc/sys/kernel/random/boot_id");
  const std::string stat = ReadFile(absl::StrCat("/proc/", pid, "/stat"));
  // The name of the program, in parentheses, may hold anything.
  const size_t name_end = stat.rfind(") ");
  const std::vector<std::string> fields =
      absl::StrSplit(name_end == stat.npos ? "" : stat.substr(name_end + 2), ' ');
  if (boot.size() < 8 || fields.size() < kStartTimeField) {
    return absl::NotFoundError(absl::StrCat("process ", pid, " has ended"));
  }
  return absl::StrCat("ram-", pid, "-", fields[kStartTimeField - 1], "-", boot.substr(0, 8));
}

absl::StatusOr<RamServer> RamServer::Start(pid_t pid, const std::string& ram,
                                           const std::string& listen) {
  RamServer server;
  server.ram_ = ram;
  absl::StatusOr<std::string> volume = RamVolumeName(pid);
  if (!volume.ok()) return volume.status();
  server.volume_ = *std::move(volume);
  absl::StatusOr<SiblingDaemon> started = server.Serve(listen);
  if (!started.ok()) return started.status();
  server.server_ = *std::move(started);
  server.address_ = server.server_.address();
  return server;
}

absl::StatusOr<SiblingDaemon> RamServer::Serve(const std::string& listen) const {
  // The volume is named after the file. The directory is needed only until that is open.
  absl::StatusOr<TemporaryDirectory> directory = TemporaryDirectory::Create("/tmp");
  if (!directory.ok()) return directory.status();
  const std::string link = absl::StrCat(directory->path(), "/", volume_);
  std::error_code error;
  std::filesystem::create_symlink(ram_, link, error);
  if (error)
    return absl::UnavailableError(absl::StrCat("cannot make ", link, ": ", error.message()));
  // Where it listens was chosen by whoever offers the machine, whose state goes the same way.
  return SiblingDaemon::StartServer({absl::StrCat("--listen=", listen),
                                     absl::StrCat("--store=file:", link), "--allow-plaintext"});
}

absl::StatusOr<bool> RamServer::KeepRunning() {
  if (server_.running()) return false;
  if (absl::Now() < try_again_) return false;
  try_again_ = absl::Now() + kRestartInterval;
  absl::StatusOr<SiblingDaemon> started = Serve(address_);
  if (!started.ok()) return started.status();
  server_ = *std::move(started);
  return true;
}

}  // namespace faultline
