// SPDX-License-Identifier: Apache-2.0
#include "client/lib/preload_takeover.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <algorithm>
#include <vector>

#include <nlohmann/json.hpp>

#include "client/lib/open_userfaultfd.h"
#include "client/lib/page_bytes.h"

namespace faultline {
namespace {

using nlohmann::json;

constexpr std::chrono::milliseconds kTimeout{30'000};

constexpr char kHasContent[] =
    " has content already, which would hide the volume's; start from an empty file (truncate -s 0, "
    "then to its size), and without anything that fills memory first (mlockall, MAP_POPULATE, "
    "mem-lock=on)";

// The allocated blocks are what counts: space that was allocated and not written is no data to
// SEEK_DATA, and still not missing to a userfaultfd. Any of it in the file does, also where the
// mapping is only a part: the kernel does not tell where it is.
Failure CheckFile(const MapCall& call) {
  struct statfs system;
  struct stat info;
  if (fstatfs(call.fd, &system) != 0 || fstat(call.fd, &info) != 0) {
    return SystemFailure("cannot look at the file of the memory");
  }
  if (system.f_type != TMPFS_MAGIC) {
    return {EINVAL,
            "the file of the memory is not on tmpfs, or of huge pages; put it into /dev/shm, with "
            "pages of 4096 bytes"};
  }
  const uint64_t end = static_cast<uint64_t>(call.offset) + call.length;
  if (static_cast<uint64_t>(info.st_size) < end) {
    return {EINVAL, "the file of the memory has " + std::to_string(info.st_size) +
                        " bytes, and its mapping reaches to " + std::to_string(end)};
  }
  if (info.st_blocks != 0) return {EBUSY, std::string("the file of the memory") + kHasContent};
  return Success();
}

Failure CheckNothingIsResident(void* address, uint64_t length) {
  unsigned char pages[4096];
  for (uint64_t done = 0; done < length; done += sizeof pages * kPageBytes) {
    const uint64_t part = std::min<uint64_t>(length - done, sizeof pages * kPageBytes);
    if (mincore(static_cast<char*>(address) + done, part, pages) != 0) {
      return SystemFailure("cannot see whether the memory is empty");
    }
    const unsigned char* end = pages + part / kPageBytes;
    if (std::any_of(static_cast<const unsigned char*>(pages), end,
                    [](unsigned char page) { return (page & 1) != 0; })) {
      return {EBUSY, std::string("the memory") + kHasContent};
    }
  }
  return Success();
}

}  // namespace

PreloadTakeover::PreloadTakeover() : agent_(kTimeout) {}

Failure PreloadTakeover::CheckVolume(const PreloadOptions& options, uint64_t length) {
  json answer;
  Failure failure = agent_.Ask({{"query", "volume"}, {"volume", options.volume}}, {}, &answer);
  if (!failure.ok()) return failure;
  const auto size = answer.find("size");
  if (size == answer.end() || !size->is_number_unsigned()) {
    return {EPROTO, "the agent did not tell the volume's size: " + answer.dump()};
  }
  const uint64_t bytes = size->get<uint64_t>();
  const bool fits = options.whole_volume
                        ? bytes == length
                        : options.offset <= bytes && length <= bytes - options.offset;
  if (fits) return Success();
  return {EINVAL, "volume " + options.volume + " has " + std::to_string(bytes) +
                      " bytes and the memory " + std::to_string(length) +
                      "; name the volume that was imported from this memory, or the part that is "
                      "meant by FAULTLINE_PRELOAD_OFFSET"};
}

Failure PreloadTakeover::Prepare(const PreloadOptions& options, const MapCall& call) {
  const bool anonymous = (call.flags & MAP_ANONYMOUS) != 0;
  if (anonymous && (call.flags & MAP_SHARED) != 0) {
    return {EINVAL,
            "the memory is shared and has no file; use a private one, a memfd or a file "
            "(memory-backend-ram with share=off, memory-backend-memfd, memory-backend-file)"};
  }
  if ((call.flags & MAP_HUGETLB) != 0) {
    return {EINVAL, "the memory is of huge pages; map it in pages of 4096 bytes"};
  }
  if ((call.flags & (MAP_POPULATE | MAP_LOCKED)) != 0) {
    return {EINVAL, std::string("the memory") + kHasContent};
  }
  if (!anonymous) {
    if (Failure failure = CheckFile(call); !failure.ok()) return failure;
  }
  if (Failure failure = agent_.Connect(options.socket_path); !failure.ok()) return failure;
  if (Failure failure = CheckVolume(options, RoundUp(call.length)); !failure.ok()) return failure;
  return OpenUserfaultfd(&uffd_, options.device.c_str());
}

Failure PreloadTakeover::HandOver(const PreloadOptions& options, const MapCall& call,
                                  void* address) {
  json range = {{"base_host_virt_addr", reinterpret_cast<uintptr_t>(address)},
                {"size", RoundUp(call.length)},
                {"offset", options.offset},
                {"page_size", kPageBytes}};
  std::vector<int> descriptors = {uffd_.get()};
  json request = {{"volume", options.volume}, {"mode", "lazy"}, {"register", true}};
  if ((call.flags & MAP_SHARED) != 0) {
    range["memfd"] = 0;
    descriptors.push_back(call.fd);
    // All that the agent hears of is MADV_REMOVE; see SharedMemory.
    request["shared_discard"] = "zero";
  }
  request["mappings"] = json::array({range});
  json answer;
  return agent_.Ask(request, descriptors, &answer);
}

Failure PreloadTakeover::Take(const PreloadOptions& options, const MapCall& call, void* address) {
  const uint64_t length = RoundUp(call.length);
  // Nobody else knows of the memory yet, so that it stays empty until the agent registers it.
  Failure failure = CheckNothingIsResident(address, length);
  if (failure.ok()) failure = HandOver(options, call, address);
  if (failure.ok()) return Success();
  // An agent that does not answer may have registered it. Without that, munmap waits for nobody.
  uffdio_range range{reinterpret_cast<uintptr_t>(address), length};
  ioctl(uffd_.get(), UFFDIO_UNREGISTER, &range);
  return failure;
}

}  // namespace faultline
