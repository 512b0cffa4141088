// SPDX-License-Identifier: Apache-2.0
#include "client/evict/memfd_extractor.h"

#include <absl/strings/str_cat.h>
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

#include "proto/page.h"

namespace faultline {

const MemoryFile* MemfdExtractor::FileOf(PageIndex page) const {
  const auto file = std::find_if(files_.begin(), files_.end(), [&](const MemoryFile& f) {
    return page.byte_offset() - f.volume_offset < f.size;
  });
  return file == files_.end() ? nullptr : &*file;
}

absl::Status MemfdExtractor::Read(std::span<const PageIndex> pages, std::byte* bytes) {
  for (size_t i = 0; i < pages.size();) {
    const MemoryFile* const file = FileOf(pages[i]);
    if (file == nullptr) return absl::OutOfRangeError("no file has such a page");
    const uint64_t at = pages[i].byte_offset() - file->volume_offset;
    size_t end = i + 1;
    while (end < pages.size() && pages[end] == pages[end - 1] + PageCount(1) &&
           at + (end - i) * kPageSize < file->size) {
      ++end;
    }
    const size_t length = (end - i) * kPageSize;
    if (pread(file->fd.get(), bytes + i * kPageSize, length,
              static_cast<off_t>(file->file_offset + at)) != static_cast<ssize_t>(length)) {
      return absl::ErrnoToStatus(errno, "read of the file of far memory");
    }
    i = end;
  }
  return absl::OkStatus();
}

std::vector<MemfdExtractor::Run> MemfdExtractor::RunsOf(std::span<const uint64_t> addresses) const {
  std::vector<Run> runs;
  space_->map_changing_lock().AssertSharedHeld();  // by the caller of Extract()
  for (size_t i = 0; i < addresses.size(); ++i) {
    const std::optional<PageIndex> page = space_->PageAt(addresses[i]);
    if (!page) continue;
    const MemoryFile* const file = FileOf(*page);
    if (file == nullptr) continue;
    const uint64_t offset = file->file_offset + (page->byte_offset() - file->volume_offset);
    if (!runs.empty()) {
      Run& last = runs.back();
      if (last.first + last.count == i && last.file == file &&
          addresses[i] == addresses[i - 1] + kPageSize &&
          offset == last.offset + last.count * kPageSize) {
        ++last.count;
        continue;
      }
    }
    runs.push_back({i, 1, file, offset});
  }
  return runs;
}

std::optional<std::vector<AddressRange>> MemfdExtractor::PresentIn(AddressRange range) const {
  std::vector<AddressRange> present;
  space_->map_changing_lock().AssertSharedHeld();
  space_->ForEachPart(range, [&](const AddressSpace::Part& part) {
    for (uint64_t done = 0; done < part.range.length;) {
      const uint64_t at = part.first.byte_offset() + done;
      const MemoryFile* const file = FileOf(PageIndex::Containing(at));
      if (file == nullptr) return;
      const uint64_t in_file = at - file->volume_offset;
      const uint64_t length = std::min(part.range.length - done, file->size - in_file);
      const off_t begin = static_cast<off_t>(file->file_offset + in_file);
      const off_t end = begin + static_cast<off_t>(length);
      for (off_t data = begin; data < end;) {
        data = lseek(file->fd.get(), data, SEEK_DATA);
        if (data < 0 || data >= end) break;
        const off_t hole = std::min(lseek(file->fd.get(), data, SEEK_HOLE), end);
        if (hole <= data) break;
        present.push_back({part.range.start + done + static_cast<uint64_t>(data - begin),
                           static_cast<uint64_t>(hole - data)});
        data = hole;
      }
      done += length;
    }
  });
  return present;
}

void MemfdExtractor::Recover(const std::vector<AddressRange>& ranges) {
  // It may have been killed between the two of ExtractRun().
  for (AddressRange range : ranges) {
    static_cast<void>(uffd_->WriteProtect(range, false));
    uffd_->Wake(range);
  }
}

absl::Status MemfdExtractor::Extract(std::span<const uint64_t> addresses,
                                     std::span<Extraction> outcomes, std::byte* bytes) {
  std::fill(outcomes.begin(), outcomes.end(), Extraction::kBusy);
  for (const Run& run : RunsOf(addresses)) {
    const AddressRange range{addresses[run.first], run.count * kPageSize};
    const absl::Status status = ExtractRun(run, range, outcomes.subspan(run.first, run.count),
                                           bytes + run.first * kPageSize);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

// Reads what the file has of `run`, and leaves the outcome of what cannot be read as it is.
void MemfdExtractor::ReadRun(const Run& run, std::span<Extraction> outcomes, std::byte* bytes) {
  const int fd = run.file->fd.get();
  const off_t begin = static_cast<off_t>(run.offset);
  const off_t end = begin + static_cast<off_t>(run.count * kPageSize);
  const auto mark = [&](off_t from, off_t to, Extraction outcome) {
    for (off_t at = from; at < to; at += static_cast<off_t>(kPageSize)) {
      outcomes[static_cast<size_t>(at - begin) / kPageSize] = outcome;
    }
  };
  for (off_t at = begin; at < end;) {
    off_t data = lseek(fd, at, SEEK_DATA);
    data = data < 0 ? end : std::min(data, end);
    mark(at, data, Extraction::kMissing);
    if (data == end) return;
    off_t hole = lseek(fd, data, SEEK_HOLE);
    hole = hole < 0 ? end : std::min(hole, end);
    const size_t length = static_cast<size_t>(hole - data);
    if (pread(fd, bytes + (data - begin), length, data) == static_cast<ssize_t>(length)) {
      mark(data, hole, Extraction::kTaken);
    }
    at = hole;
  }
}

absl::Status MemfdExtractor::ExtractRun(const Run& run, AddressRange range,
                                        std::span<Extraction> outcomes, std::byte* bytes) {
  const int error = uffd_->WriteProtect(range, true);
  if (error == EAGAIN) return absl::UnavailableError("the address space is changing");
  if (error == ESRCH) return absl::NotFoundError("the process is gone");
  if (error != 0) return absl::OkStatus();  // they stay
  // Whoever writes from here on waits, until it is woken or the page is gone.
  const int fd = run.file->fd.get();
  ReadRun(run, outcomes, bytes);
  bool all_taken = true;
  for (size_t i = 0; i < run.count;) {
    size_t end = i;
    while (end < run.count && outcomes[end] == Extraction::kTaken) ++end;
    if (end > i && fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                             static_cast<off_t>(run.offset + i * kPageSize),
                             static_cast<off_t>((end - i) * kPageSize)) != 0) {
      std::fill(outcomes.begin() + static_cast<std::ptrdiff_t>(i),
                outcomes.begin() + static_cast<std::ptrdiff_t>(end), Extraction::kBusy);
    }
    all_taken = all_taken && end - i == run.count && outcomes[i] == Extraction::kTaken;
    i = end + 1;
  }
  // What stays may be written to again; what is gone is not protected any more.
  if (!all_taken) static_cast<void>(uffd_->WriteProtect(range, false));
  uffd_->Wake(range);
  return absl::OkStatus();
}

}  // namespace faultline
