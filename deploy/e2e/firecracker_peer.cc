// SPDX-License-Identifier: Apache-2.0
//
// Hands memory over as Firecracker does, byte for byte: its own userfaultfd, past UFFDIO_API and
// registered, and one JSON array that is never answered. Shares no code with the agent or the
// library. The volume is laid out over the regions one after the other; between the regions there
// is memory that is not registered. Then it checks every byte and prints what page_check.h says for
// each region.
//
//   firecracker_peer --socket=PATH --reference=FILE --regions=N --region-bytes=N [--stay] [--old]
//   --stay  keeps the connection open (newer Firecrackers do); otherwise it is closed at once
//   --old   says "page_size_kib", as old versions did, and not "page_size"
#include <fcntl.h>
#include <getopt.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "deploy/e2e/page_check.h"

namespace faultline::e2e {
namespace {

constexpr int kThreads = 2;

struct Flags {
  std::string socket, reference;
  uint64_t regions = 1;
  uint64_t region_bytes = 0;
  bool stay = false;
  bool old = false;
};

Flags ParseFlags(int argc, char** argv) {
  constexpr option kOptions[] = {{"socket", 1, nullptr, 's'},       {"reference", 1, nullptr, 'r'},
                                 {"regions", 1, nullptr, 'n'},      {"stay", 0, nullptr, 'k'},
                                 {"region-bytes", 1, nullptr, 'b'}, {"old", 0, nullptr, 'o'},
                                 {nullptr, 0, nullptr, 0}};
  Flags flags;
  for (int c; (c = getopt_long(argc, argv, "", kOptions, nullptr)) != -1;) {
    switch (c) {
      case 's':
        flags.socket = optarg;
        break;
      case 'r':
        flags.reference = optarg;
        break;
      case 'n':
        flags.regions = ParseNumber(optarg);
        break;
      case 'b':
        flags.region_bytes = ParseNumber(optarg);
        break;
      case 'k':
        flags.stay = true;
        break;
      case 'o':
        flags.old = true;
        break;
      default:
        fprintf(stderr, "wrong usage; see the head of firecracker_peer.cc\n");
        exit(64);
    }
  }
  return flags;
}

int OpenUserfaultfd() {
  const int fd = static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK));
  if (fd < 0) Die("userfaultfd");
  uffdio_api api{};
  api.api = UFFD_API;
  api.features = UFFD_FEATURE_EVENT_REMOVE;
  if (ioctl(fd, UFFDIO_API, &api) != 0) Die("UFFDIO_API");
  return fd;
}

// Maps a region with a page before and after it that is not part of it, and registers it.
std::byte* MapRegion(int uffd, uint64_t bytes) {
  void* address = mmap(nullptr, bytes + 2 * kPageBytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (address == MAP_FAILED) Die("mmap");
  std::byte* region = static_cast<std::byte*>(address) + kPageBytes;
  uffdio_register registration{};
  registration.range = {reinterpret_cast<uint64_t>(region), bytes};
  registration.mode = UFFDIO_REGISTER_MODE_MISSING;
  if (ioctl(uffd, UFFDIO_REGISTER, &registration) != 0) Die("UFFDIO_REGISTER");
  return region;
}

std::string HandoverText(const std::vector<std::byte*>& regions, const Flags& flags) {
  std::string text = "[";
  for (size_t i = 0; i < regions.size(); ++i) {
    text += (i == 0 ? "" : ",") + std::string("{\"base_host_virt_addr\":") +
            std::to_string(reinterpret_cast<uint64_t>(regions[i])) +
            ",\"size\":" + std::to_string(flags.region_bytes) +
            ",\"offset\":" + std::to_string(i * flags.region_bytes) +
            (flags.old ? ",\"page_size_kib\":" : ",\"page_size\":") + std::to_string(kPageBytes) +
            (flags.old ? "}" : ",\"page_size_kib\":" + std::to_string(kPageBytes) + "}");
  }
  return text + "]";
}

// Returns the connection.
int HandOver(const std::string& path, std::string text, int uffd) {
  const int socket_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  if (connect(socket_fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    Die("connect to " + path);
  }
  iovec part{text.data(), text.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(header), &uffd, sizeof uffd);
  if (sendmsg(socket_fd, &message, MSG_NOSIGNAL) != static_cast<ssize_t>(text.size())) {
    Die("sendmsg");
  }
  return socket_fd;
}

int Main(int argc, char** argv) {
  const Flags flags = ParseFlags(argc, argv);
  const int uffd = OpenUserfaultfd();
  std::vector<std::byte*> regions;
  for (uint64_t i = 0; i < flags.regions; ++i) {
    regions.push_back(MapRegion(uffd, flags.region_bytes));
  }
  const int connection = HandOver(flags.socket, HandoverText(regions, flags), uffd);
  if (!flags.stay) close(connection);

  const uint64_t pages = flags.region_bytes / kPageBytes;
  const ExpectedPages expected(flags.reference, pages * flags.regions);
  for (uint64_t i = 0; i < flags.regions; ++i) {
    // The volume's page N is at `memory` + N pages.
    const std::byte* memory = regions[i] - i * flags.region_bytes;
    const std::string found =
        expected.Check(memory, {i * pages, pages}, kThreads, ExpectedPages::Sharing::kSplit);
    printf("region %d %s\n", static_cast<int>(i), found.c_str());
  }
  return 0;
}

}  // namespace
}  // namespace faultline::e2e

int main(int argc, char** argv) { return faultline::e2e::Main(argc, argv); }
