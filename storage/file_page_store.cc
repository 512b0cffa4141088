// SPDX-License-Identifier: Apache-2.0
#include "storage/file_page_store.h"

#include <absl/strings/ascii.h>
#include <absl/strings/str_cat.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "proto/page_codec.h"
#include "proto/volume_name.h"
#include "storage/volume_catalog.h"

namespace faultline {
namespace {

constexpr LayerId kImageLayer{1};
constexpr uint64_t kPagesPerRead = 64;

// The image's base name, with what a volume's name may not contain replaced.
std::string VolumeNameOf(const std::string& path) {
  std::string name = path.substr(path.rfind('/') + 1);
  name.resize(std::min(name.size(), kMaxVolumeNameBytes));
  for (char& c : name) {
    if (!absl::ascii_isalnum(static_cast<unsigned char>(c)) && c != '.' && c != '_' && c != '-') {
      c = '_';
    }
  }
  if (name.empty()) return "image";
  if (name[0] == '.' || name[0] == '-') name[0] = '_';
  return name;
}

class FilePageStore final : public PageStore {
 public:
  // Takes `fd`.
  FilePageStore(int fd, std::string path, uint64_t size_bytes)
      : fd_(fd), path_(std::move(path)), size_bytes_(size_bytes) {}
  ~FilePageStore() override { close(fd_); }

  absl::Status Read(LayerId layer, PageRange range, Visitor visit) override;
  absl::Status Write(LayerId, const PageWrites&, Durability) override { return ReadOnly(); }
  absl::Status Sync() override { return absl::OkStatus(); }
  absl::StatusOr<std::unique_ptr<BulkLoad>> StartBulkLoad(LayerId) override { return ReadOnly(); }
  absl::Status DeleteLayer(LayerId) override { return ReadOnly(); }
  absl::StatusOr<uint64_t> StoredBytes(LayerId layer) override;
  absl::StatusOr<std::vector<std::pair<std::string, std::string>>> ReadMeta() override {
    return std::vector<std::pair<std::string, std::string>>();
  }
  absl::Status WriteMeta(std::span<const MetaChange>) override { return ReadOnly(); }
  StoreStats Stats() override;
  bool read_only() const override { return true; }
  std::optional<RawImage> raw_image() const override {
    return RawImage{VolumeNameOf(path_), size_bytes_, kImageLayer};
  }

 private:
  absl::Status ReadOnly() const {
    return absl::FailedPreconditionError(absl::StrCat(
        path_, " is served in place, read-only; import it into another store to change it"));
  }
  absl::Status Shrank(uint64_t have_bytes) const {
    return absl::DataLossError(absl::StrCat(path_, " shrank to ", have_bytes,
                                            " bytes while it was served as ", size_bytes_,
                                            "; bring it back and start the server again"));
  }
  absl::Status Failed(absl::string_view call, int error) const {
    return absl::UnavailableError(absl::StrCat(call, " of ", path_, ": ", strerror(error)));
  }

  absl::StatusOr<uint64_t> SizeNow() const;
  // The first page at or after `from` that may hold data; `end` if none before it does.
  absl::StatusOr<PageIndex> NextData(PageIndex from, PageIndex end) const;
  // Reads `range` and gives its pages that are not zero to `visit`.
  absl::Status ReadData(PageRange range, Visitor visit) const;

  const int fd_;
  const std::string path_;
  const uint64_t size_bytes_;
};

absl::StatusOr<uint64_t> FilePageStore::SizeNow() const {
  const off_t size = lseek(fd_, 0, SEEK_END);
  if (size < 0) return Failed("lseek", errno);
  return static_cast<uint64_t>(size);
}

absl::StatusOr<PageIndex> FilePageStore::NextData(PageIndex from, PageIndex end) const {
  const off_t data = lseek(fd_, static_cast<off_t>(from.byte_offset()), SEEK_DATA);
  if (data >= 0) {
    return std::clamp(PageIndex::Containing(static_cast<uint64_t>(data)), from, end);
  }
  if (errno == EINVAL) return from;  // a file system or device that does not know holes
  if (errno != ENXIO) return Failed("lseek", errno);
  // A hole up to the end of the file, or the end came nearer than it was.
  const absl::StatusOr<uint64_t> size = SizeNow();
  if (!size.ok()) return size.status();
  if (*size < size_bytes_) return Shrank(*size);
  return end;
}

absl::Status FilePageStore::ReadData(PageRange range, Visitor visit) const {
  std::array<std::byte, kPagesPerRead * kPageSize> buffer;
  const uint64_t offset = range.first.byte_offset();
  const uint64_t want = std::min(range.size_bytes(), size_bytes_ - offset);
  for (uint64_t got = 0; got < want;) {
    const ssize_t n = pread(fd_, buffer.data() + got, want - got, static_cast<off_t>(offset + got));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Failed("pread", errno);
    if (n == 0) return Shrank(offset + got);
    got += static_cast<uint64_t>(n);
  }
  std::fill(buffer.begin() + static_cast<ptrdiff_t>(want),
            buffer.begin() + static_cast<ptrdiff_t>(range.size_bytes()), std::byte{0});
  std::string encoded;
  for (PageIndex page = range.first; page < range.end(); ++page) {
    const PageBytes bytes(buffer.data() + (page - range.first).in_bytes(), kPageSize);
    if (IsZeroPage(bytes)) continue;
    encoded.clear();
    EncodePage(page, bytes, Codec::kRaw, &encoded);
    if (absl::Status status = visit(page, encoded); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status FilePageStore::Read(LayerId layer, PageRange range, Visitor visit) {
  if (layer != kImageLayer) return absl::OkStatus();
  range = range.Intersect({PageIndex(0), PageCount::CoveringBytes(size_bytes_)});
  PageIndex next = range.first;
  while (next < range.end()) {
    const absl::StatusOr<PageIndex> data = NextData(next, range.end());
    if (!data.ok()) return data.status();
    const PageRange piece =
        PageRange::Between(*data, std::min(range.end(), *data + PageCount(kPagesPerRead)));
    if (piece.empty()) break;
    if (absl::Status status = ReadData(piece, visit); !status.ok()) return status;
    next = piece.end();
  }
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> FilePageStore::StoredBytes(LayerId layer) {
  if (layer != kImageLayer) return 0;
  const PageIndex end = PageIndex(0) + PageCount::CoveringBytes(size_bytes_);
  const absl::StatusOr<PageIndex> data = NextData(PageIndex(0), end);
  if (!data.ok()) return data.status();
  if (*data == end) return 0;
  struct stat stats {};
  if (fstat(fd_, &stats) != 0) return Failed("fstat", errno);
  // A block device, and a file kept within its inode, has no blocks to count.
  if (stats.st_blocks == 0) return size_bytes_;
  return static_cast<uint64_t>(stats.st_blocks) * 512;
}

StoreStats FilePageStore::Stats() {
  const absl::StatusOr<uint64_t> stored = StoredBytes(kImageLayer);
  return {.stored_bytes = stored.ok() ? *stored : 0, .free_bytes = 0};
}

}  // namespace

absl::StatusOr<std::unique_ptr<PageStore>> OpenFilePageStore(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open the image ", path));
  struct stat stats {};
  const bool known = fstat(fd, &stats) == 0;
  const off_t size = lseek(fd, 0, SEEK_END);
  // Owns the descriptor from here on, also where the image is refused.
  auto store =
      std::make_unique<FilePageStore>(fd, path, size < 0 ? 0 : static_cast<uint64_t>(size));
  if (!known || !(S_ISREG(stats.st_mode) || S_ISBLK(stats.st_mode))) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, " is neither a file nor a block device, so it is no raw image"));
  }
  if (size <= 0 || static_cast<uint64_t>(size) > PageCount(kMaxVolumePages).in_bytes()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the image ", path, " has ", size, " bytes; a volume needs at least one"));
  }
  return store;
}

}  // namespace faultline
