// SPDX-License-Identifier: Apache-2.0
//
// Reads a file of any bytes as a trace. Every other input gets a header whose first fields are
// right, so that the slots behind it are looked at, too.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "client/trace/trace_reader.h"

namespace {

using faultline::PageCount;

std::vector<uint8_t> FileOf(const uint8_t* data, size_t size) {
  std::vector<uint8_t> file(data + 1, data + size);
  if (data[0] % 2 == 0) return file;
  // The rest of the header and the slots are the input's, without the gap between them.
  faultline::TraceHeader header = {};
  const size_t given = std::min(file.size(), sizeof(header));
  std::copy_n(file.begin(), given, reinterpret_cast<uint8_t*>(&header));
  memcpy(header.magic, faultline::kTraceMagic, sizeof(header.magic));
  header.version = faultline::kTraceVersion;
  header.slot_bytes = faultline::kTraceSlotBytes;
  header.when_full %= 2;
  header.capacity &= 0xffff;
  std::vector<uint8_t> made(faultline::kTraceHeaderBytes);
  memcpy(made.data(), &header, sizeof(header));
  made.insert(made.end(), file.begin() + static_cast<std::ptrdiff_t>(given), file.end());
  return made;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  static const int memory = memfd_create("trace", MFD_CLOEXEC);
  const std::vector<uint8_t> file = FileOf(data, size);
  if (memory < 0 || ftruncate(memory, 0) != 0 ||
      pwrite(memory, file.data(), file.size(), 0) != static_cast<ssize_t>(file.size())) {
    abort();
  }
  auto trace = faultline::TraceReader::Open("/proc/self/fd/" + std::to_string(memory));
  if (!trace.ok()) return 0;
  const uint64_t volume_pages =
      trace->header().volume_pages == 0 ? faultline::kMaxVolumePages : trace->header().volume_pages;
  uint64_t records = 0;
  for (;;) {
    const auto record = trace->Next();
    if (!record.ok()) abort();  // a memfd can be read
    if (!*record) break;
    ++records;
    if (TraceKindName((*record)->kind).empty() || (*record)->count == 0 ||
        !faultline::IsWithin((*record)->page.raw(), (*record)->count, PageCount(volume_pages))) {
      abort();
    }
    TraceOutcomeName((*record)->outcome);
  }
  // No record comes from nowhere, and none that was begun is forgotten.
  if (records * faultline::kTraceSlotBytes > file.size()) abort();
  if (records + trace->skipped() != std::min(trace->header().begun, trace->header().capacity)) {
    abort();
  }
  return 0;
}
