// SPDX-License-Identifier: Apache-2.0
#include "client/journal/journal.h"

#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <absl/time/clock.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>

#include "client/uffd/target_uffd.h"
#include "proto/log.h"

namespace faultline {
namespace {

constexpr absl::Duration kLockInterval = absl::Milliseconds(5);
constexpr char kLockName[] = "/lock";

}  // namespace

absl::StatusOr<std::unique_ptr<Journal>> Journal::Open(const std::string& directory,
                                                       absl::Duration patience) {
  const auto failed = [&](absl::string_view what) {
    return absl::FailedPreconditionError(
        absl::StrCat("the journal ", directory, " ", what, ", or choose another with --journal"));
  };
  if (mkdir(directory.c_str(), 0700) != 0 && errno != EEXIST) {
    return failed(absl::StrCat("cannot be made: ", strerror(errno)));
  }
  UniqueFd lock(open((directory + kLockName).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!lock) return failed(absl::StrCat("cannot be written to: ", strerror(errno)));
  const absl::Time deadline = absl::Now() + patience;
  while (flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK || absl::Now() > deadline) {
      return failed("is in use by another agent; stop that");
    }
    absl::SleepFor(kLockInterval);
  }
  return std::unique_ptr<Journal>(new Journal(directory, std::move(lock)));
}

Journal::Journal(std::string directory, UniqueFd lock)
    : directory_(std::move(directory)), lock_(std::move(lock)), next_id_([this] {
        AttachmentId last = 0;
        for (AttachmentId id : Ids()) last = std::max(last, id);
        return last + 1;
      }()) {}

std::vector<AttachmentId> Journal::Ids() const {
  std::vector<AttachmentId> ids;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory_, error)) {
    AttachmentId id;
    if (absl::SimpleAtoi(entry.path().filename().string(), &id)) ids.push_back(id);
  }
  return ids;
}

std::string Journal::PathOf(AttachmentId id) const { return absl::StrCat(directory_, "/", id); }

std::vector<LeftAttachment> Journal::TakeLeft(std::vector<std::string>* volumes) {
  std::vector<LeftAttachment> left;
  for (AttachmentId id : Ids()) {
    const std::string path = PathOf(id);
    absl::StatusOr<std::unique_ptr<AttachmentJournal>> journal = AttachmentJournal::Open(path);
    if (journal.ok()) {
      const ProcessIdentity& process = (*journal)->record().process;
      absl::StatusOr<UniqueFd> pidfd = OpenProcess(process);
      if (pidfd.ok()) {
        left.push_back({*std::move(journal), *std::move(pidfd)});
        continue;
      }
      LogInfo(absl::StrCat("attachment ", (*journal)->record().id,
                           " of the last agent has ended: ", pidfd.status().message()));
      const AttachmentRecord& record = (*journal)->record();
      if (record.far && record.far->owns_volume) volumes->push_back(record.volume);
    } else if (!absl::IsNotFound(journal.status())) {
      LogError(absl::StrCat("an attachment of the last agent is lost, and its process waits: ",
                            journal.status().message()));
    }
    Remove(id);
  }
  return left;
}

absl::StatusOr<std::unique_ptr<AttachmentJournal>> Journal::Create(AttachmentRecord record) const {
  const std::string path = PathOf(record.id);
  return AttachmentJournal::Create(path, std::move(record));
}

void Journal::Remove(AttachmentId id) const {
  std::error_code ignored;
  std::filesystem::remove_all(PathOf(id), ignored);
}

}  // namespace faultline
