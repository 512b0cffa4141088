// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_CLI_IMAGE_WRITER_H_
#define FAULTLINE_CLIENT_CLI_IMAGE_WRITER_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "client/unique_fd.h"
#include "proto/page_codec.h"
#include "proto/pager.pb.h"

namespace faultline {

enum class Overwrite { kNo, kYes };

// Writes the batches of an export to a raw image. A file is written beside its final name and takes
// that in Commit(); destroyed before, it leaves nothing behind, and nor does SIGINT or SIGTERM.
// What is zero stays a hole. Not thread-safe, and one at a time in a process.
class ImageWriter {
 public:
  // "-" is the standard output. ALREADY_EXISTS for a file that is there, unless it may be
  // overwritten; else what the system says, naming the path.
  static absl::StatusOr<std::unique_ptr<ImageWriter>> Open(const std::string& path,
                                                           Overwrite overwrite);
  ~ImageWriter();
  ImageWriter(const ImageWriter&) = delete;
  ImageWriter& operator=(const ImageWriter&) = delete;

  // Takes pages in ascending order, none left out, and verifies them: DATA_LOSS where one is
  // damaged, INTERNAL where it is not the next. `size_bytes` is that of the whole image.
  absl::Status Append(uint64_t size_bytes, const rpc::PageBatch& batch);
  // Ends the image. DATA_LOSS where pages are missing.
  absl::Status Commit();

  uint64_t position_bytes() const { return next_.byte_offset(); }
  // Written so far, holes not counted.
  uint64_t data_bytes() const { return data_bytes_; }

 private:
  ImageWriter(std::string path, std::string part, UniqueFd fd);

  absl::Status AppendData(PageIndex page, absl::string_view encoded);
  absl::Status AppendZero(PageRange range);
  absl::Status Flush();
  absl::Status WriteAll(const std::byte* bytes, size_t count, uint64_t offset);

  const std::string path_;
  const std::string part_;  // what the file is called until Commit(); empty for standard output
  UniqueFd fd_;
  std::optional<uint64_t> size_bytes_;
  PageIndex next_;
  // Pages that were decoded and are not written yet: `buffered_` of them, up to `next_`.
  const std::unique_ptr<std::byte[]> buffer_;
  PageCount buffered_;
  uint64_t data_bytes_ = 0;
  bool committed_ = false;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_CLI_IMAGE_WRITER_H_
