// SPDX-License-Identifier: Apache-2.0
//
// What the tests of the fault pipeline share: memory on a scripted kernel, and a target that notes
// what is done to it.
#ifndef FAULTLINE_CLIENT_FAULT_FAULT_TESTING_H_
#define FAULTLINE_CLIENT_FAULT_FAULT_TESTING_H_

#include <memory>
#include <string>
#include <vector>

#include "client/fault/fault_reader.h"
#include "client/fault/fetcher.h"
#include "client/fault/paged_memory.h"
#include "client/uffd/fake_uffd.h"

namespace faultline {

// Where their targets have their memory.
inline constexpr uint64_t kBase = 0x100000;
inline constexpr uint64_t P = kPageSize;

// Page `page` of the volume that all of these tests use.
inline std::string TestPage(uint64_t page) {
  std::string bytes(kPageSize, static_cast<char>('a' + page % 26));
  bytes.replace(0, 8, std::to_string(10000000 + page));
  return bytes;
}

inline std::string TestVolume(uint64_t pages) {
  std::string bytes;
  for (uint64_t page = 0; page < pages; ++page) bytes += TestPage(page);
  return bytes;
}

inline const std::byte* AsBytes(const std::string& bytes) {
  return reinterpret_cast<const std::byte*>(bytes.data());
}

// Memory of a target on a FakeUffd, with its mappings registered.
struct FakeMemory {
  explicit FakeMemory(const std::vector<Mapping>& mappings) {
    auto uffd = std::make_unique<FakeUffd>();
    kernel = uffd.get();
    for (const Mapping& mapping : mappings) kernel->AddRegistered({mapping.address, mapping.size});
    memory = std::make_shared<PagedMemory>(
        std::move(uffd), mappings, *PageTable::Create({PageIndex(0), PageCount(10000)}, {}));
  }

  std::shared_ptr<PagedMemory> memory;
  FakeUffd* kernel;  // owned by memory
};

// A host whose target has memory at `mapped` and nowhere else.
class FakeHost final : public ReaderHost {
 public:
  void OnFork(std::shared_ptr<PagedMemory> memory) override { children.push_back(memory); }
  absl::StatusOr<std::shared_ptr<PageSource>> ForkSource() override { return nullptr; }
  bool KnowsProcess(pid_t) override { return true; }
  bool IsRunning() override { return false; }
  std::vector<AddressRange> MappedParts(AddressRange range) override {
    asked.push_back(range);
    return mapped;
  }

  std::vector<std::shared_ptr<PagedMemory>> children;
  std::vector<AddressRange> asked, mapped;
};

class FakeTarget final : public Target {
 public:
  std::string Name() const override { return "target"; }
  bool Kill(const std::string& reason) override {
    kills.push_back(reason);
    return true;
  }
  void Gone() override { ++gone; }

  std::vector<std::string> kills;
  int gone = 0;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_FAULT_FAULT_TESTING_H_
