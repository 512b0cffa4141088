// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_EVICT_MEMFD_EXTRACTOR_H_
#define FAULTLINE_CLIENT_EVICT_MEMFD_EXTRACTOR_H_

#include <optional>
#include <utility>
#include <vector>

#include "client/address_space.h"
#include "client/evict/page_extractor.h"
#include "client/uffd/uffd.h"
#include "client/unique_fd.h"

namespace faultline {

// A part of a volume that a file in memory (memfd, tmpfs) holds, all in bytes.
struct MemoryFile {
  UniqueFd fd;
  uint64_t volume_offset = 0;
  uint64_t file_offset = 0;
  uint64_t size = 0;
};

// Takes pages of files in memory out of them, with no help from the target: write-protects them in
// the target, reads them from the file, and punches holes. The memory must be registered with
// uapi::kRegisterModeWp, too, and mapped by the target alone, and once: another mapping or write(2)
// would not be held off. The same goes for the kernel writing to pages that are pinned for I/O
// (O_DIRECT, io_uring's fixed buffers, vhost).
class MemfdExtractor final : public PageExtractor {
 public:
  // `uffd` and `space` are borrowed.
  MemfdExtractor(Uffd* uffd, const AddressSpace* space, std::vector<MemoryFile> files)
      : uffd_(uffd), space_(space), files_(std::move(files)) {}

  absl::Status Extract(std::span<const uint64_t> addresses, std::span<Extraction> outcomes,
                       std::byte* bytes) override;
  absl::Status Read(std::span<const PageIndex> pages, std::byte* bytes) override;
  // As the files have it: a page that is there need not be in the page tables.
  std::optional<std::vector<AddressRange>> PresentIn(AddressRange range) const override;
  void Recover(const std::vector<AddressRange>& ranges) override;

 private:
  // Pages that follow each other in memory and in a file.
  struct Run {
    size_t first;  // of `addresses`
    size_t count;
    const MemoryFile* file;
    uint64_t offset;  // in the file
  };
  // Null where no file has `page`.
  const MemoryFile* FileOf(PageIndex page) const;
  std::vector<Run> RunsOf(std::span<const uint64_t> addresses) const;
  static void ReadRun(const Run& run, std::span<Extraction> outcomes, std::byte* bytes);
  absl::Status ExtractRun(const Run& run, AddressRange range, std::span<Extraction> outcomes,
                          std::byte* bytes);

  Uffd* const uffd_;
  const AddressSpace* const space_;
  const std::vector<MemoryFile> files_;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_EVICT_MEMFD_EXTRACTOR_H_
