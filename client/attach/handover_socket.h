// SPDX-License-Identifier: Apache-2.0
//
// The Unix stream socket of handovers: who listens on it, and bytes that arrive with descriptors.
#ifndef FAULTLINE_CLIENT_ATTACH_HANDOVER_SOCKET_H_
#define FAULTLINE_CLIENT_ATTACH_HANDOVER_SOCKET_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>
#include <sys/types.h>

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "client/attach/volume_permissions.h"
#include "client/unique_fd.h"

namespace faultline {

// A socket that listens at a path of the file system. Not thread-safe.
class ListeningSocket {
 public:
  // Non-blocking, with exactly the permissions `mode`, and the owner and group that `owner` names.
  // Creates the folder of `path` where only that
  // last one is missing, and replaces a socket that nobody listens on any more. ALREADY_EXISTS
  // where somebody does, or where `path` is no socket; INVALID_ARGUMENT for a path too long for a
  // socket.
  static absl::StatusOr<ListeningSocket> Open(const std::string& path, mode_t mode,
                                              const SocketOwner& owner = {});

  // The one of `sockets`, which are closed on error, that a service manager has opened at `path`
  // for this process. INVALID_ARGUMENT where it is not one socket that listens there.
  static absl::StatusOr<ListeningSocket> TakeOver(const std::vector<int>& sockets,
                                                  const std::string& path);

  ListeningSocket(ListeningSocket&&) = default;
  ListeningSocket& operator=(ListeningSocket&&) = delete;
  // Removes the path, unless it was opened by somebody else, or another socket stands there by now.
  ~ListeningSocket();

  int fd() const { return fd_.get(); }

 private:
  ListeningSocket(UniqueFd fd, std::string path, dev_t device, ino_t inode)
      : fd_(std::move(fd)), path_(std::move(path)), device_(device), inode_(inode) {}

  UniqueFd fd_;
  std::string path_;  // empty: not ours to remove
  dev_t device_;
  ino_t inode_;
};

struct Received {
  size_t bytes = 0;  // 0: the end of the stream
  // Not all of the descriptors arrived, because this process may not have more.
  bool descriptors_lost = false;
};

// Reads into `buffer` without blocking and appends the descriptors that came along, close-on-exec,
// to `descriptors`, closing those beyond `max_descriptors` in all. Nothing where nothing is there
// to be read now. UNAVAILABLE where the connection broke.
absl::StatusOr<std::optional<Received>> ReceiveWithDescriptors(int socket, std::span<char> buffer,
                                                               size_t max_descriptors,
                                                               std::vector<UniqueFd>* descriptors);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_ATTACH_HANDOVER_SOCKET_H_
