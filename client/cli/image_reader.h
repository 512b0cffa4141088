// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_CLI_IMAGE_READER_H_
#define FAULTLINE_CLIENT_CLI_IMAGE_READER_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <sys/stat.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "client/unique_fd.h"
#include "proto/page_codec.h"
#include "proto/pager.pb.h"

namespace faultline {

// Reads a raw image and encodes its pages. Holes are passed over, and pages of zeros left out. Not
// thread-safe, but for position_bytes().
class ImageReader {
 public:
  // NOT_FOUND, PERMISSION_DENIED or FAILED_PRECONDITION (neither a regular file nor a block device,
  // or empty), naming the path.
  static absl::StatusOr<std::unique_ptr<ImageReader>> Open(const std::string& path, Codec codec);

  uint64_t size_bytes() const { return size_bytes_; }
  // How far the file has been read.
  uint64_t position_bytes() const { return position_.load(std::memory_order_relaxed); }

  // Puts about 1 MiB of encoded pages into `*batch`, overwriting it; false, with no pages, at the
  // end. The last page is filled up with zeros. ABORTED where the file has changed since Open().
  absl::StatusOr<bool> Next(rpc::PageBatch* batch);

 private:
  ImageReader(std::string path, Codec codec, UniqueFd fd, struct stat opened, uint64_t size_bytes);

  // Moves the position to the next data, and finds where that ends.
  absl::Status FindData();
  // Reads what comes next of the data into buffer_, filled up to whole pages; returns the bytes.
  absl::StatusOr<size_t> ReadData();
  absl::Status CheckUnchanged() const;

  const std::string path_;
  const Codec codec_;
  const UniqueFd fd_;
  const struct stat opened_;
  const uint64_t size_bytes_;
  const std::unique_ptr<std::byte[]> buffer_;
  std::atomic<uint64_t> position_ = 0;
  uint64_t data_end_ = 0;  // of the extent that the position is in
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_CLI_IMAGE_READER_H_
