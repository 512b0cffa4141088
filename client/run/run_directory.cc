// SPDX-License-Identifier: Apache-2.0
#include "client/run/run_directory.h"

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

namespace faultline {
namespace {

using nlohmann::json;

constexpr char kName[] = "faultline-run.";
constexpr char kOwner[] = "/owner";
constexpr char kJournalLock[] = "/journal/lock";  // Journal::Open()
constexpr char kLastParent[] = "/tmp";

std::vector<std::string> ParentsInMemory() {
  std::vector<std::string> parents = {"/dev/shm"};
  if (const char* const runtime = getenv("XDG_RUNTIME_DIR"); runtime != nullptr) {
    parents.emplace_back(runtime);
  }
  return parents;
}

std::string ParentFor(uint64_t bytes) {
  for (const std::string& directory : ParentsInMemory()) {
    struct statfs info;
    if (statfs(directory.c_str(), &info) != 0 || info.f_type != TMPFS_MAGIC) continue;
    const uint64_t free = static_cast<uint64_t>(info.f_bsize) * info.f_bavail;
    if (free >= bytes && access(directory.c_str(), W_OK) == 0) return directory;
  }
  return kLastParent;
}

void RemoveAll(const std::string& path) {
  std::error_code ignored;
  std::filesystem::remove_all(path, ignored);
}

// False where another process has it locked. What is not there is locked by nobody.
bool IsUnlocked(const std::string& path) {
  const UniqueFd file(open(path.c_str(), O_RDWR | O_CLOEXEC));
  return file ? flock(file.get(), LOCK_EX | LOCK_NB) == 0 : errno == ENOENT;
}

void CollectIfKilled(const std::string& path, const std::string& server,
                     absl::FunctionRef<absl::Status(const std::string& prefix)> delete_volumes) {
  // Kept, so that one run collects it.
  const UniqueFd owner(open((path + kOwner).c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW));
  struct stat info;
  if (!owner || fstat(owner.get(), &info) != 0 || info.st_uid != geteuid() ||
      flock(owner.get(), LOCK_EX | LOCK_NB) != 0) {
    return;
  }
  if (!IsUnlocked(path + kJournalLock)) return;  // its agent is about to remove it
  std::array<char, 4096> text;
  const ssize_t n = read(owner.get(), text.data(), text.size());
  const json noted = json::parse(text.data(), text.data() + std::max<ssize_t>(n, 0), nullptr,
                                 /*allow_exceptions=*/false);
  if (!noted.is_object() || noted.value("server", "") != server) return;
  const std::string prefix = noted.value("volumes", "");
  if (!prefix.empty() && delete_volumes(prefix).ok()) RemoveAll(path);
}

}  // namespace

absl::StatusOr<std::unique_ptr<RunDirectory>> RunDirectory::Create(
    uint64_t journal_bytes, const std::string& server, const std::string& volume_prefix) {
  std::string path = absl::StrCat(ParentFor(journal_bytes), "/", kName, "XXXXXX");
  if (mkdtemp(path.data()) == nullptr) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot make a directory ", path));
  }
  std::unique_ptr<RunDirectory> made(new RunDirectory(path));
  made->owner_.reset(open((path + kOwner).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  const std::string text = json{{"server", server}, {"volumes", volume_prefix}}.dump();
  // Locked first: nobody takes it for that of a killed one.
  if (!made->owner_ || flock(made->owner_.get(), LOCK_EX) != 0 ||
      write(made->owner_.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot write to ", path));
  }
  return made;
}

RunDirectory::~RunDirectory() {
  if (!leave_) RemoveAll(path_);
}

void CollectKilledRuns(const std::string& server,
                       absl::FunctionRef<absl::Status(const std::string& prefix)> delete_volumes) {
  std::vector<std::string> parents = ParentsInMemory();
  parents.emplace_back(kLastParent);
  for (const std::string& parent : parents) {
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(parent, error)) {
      if (!absl::StartsWith(entry.path().filename().string(), kName)) continue;
      CollectIfKilled(entry.path().string(), server, delete_volumes);
    }
  }
}

}  // namespace faultline
