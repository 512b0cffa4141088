// SPDX-License-Identifier: Apache-2.0
#include "client/churn/operation.h"

#include <algorithm>
#include <numeric>

namespace faultline::churn {
namespace {

struct Entry {
  std::string_view name;
  uint32_t weight;  // share of the mix, in thousandths or so
};

// In the order of the enumeration. What uses memory up (unmap, map-over, move-over) is rare enough
// for the memory to last for a generation; a fork costs as much as some hundred of the others.
constexpr std::array<Entry, kOperations> kEntries = {{
    {"read", 300},
    {"write", 130},
    {"dontneed", 90},
    {"free", 30},
    {"remove", 50},
    {"move", 90},
    {"move-vacated", 90},
    {"move-over", 6},
    {"grow", 45},
    {"shrink", 35},
    {"dontunmap", 35},
    {"unmap", 18},
    {"map-over", 8},
    {"protect", 40},
    {"fork-advice", 12},
    {"fork", 4},
    {"fork-all", 1},
}};

}  // namespace

std::string_view OperationName(Operation operation) {
  return kEntries[static_cast<size_t>(operation)].name;
}

std::string OperationNames() {
  std::string names;
  for (const Entry& entry : kEntries) {
    if (!names.empty()) names += ',';
    names += entry.name;
  }
  return names;
}

OperationMix::OperationMix(MemoryKind memory) {
  for (size_t i = 0; i < kOperations; ++i) weights_[i] = kEntries[i].weight;
  Drop(memory == MemoryKind::kAnon ? Operation::kRemove : Operation::kFree);
}

bool OperationMix::Restrict(std::string_view list, std::string* error) {
  std::array<bool, kOperations> kept = {};
  for (size_t at = 0; at <= list.size();) {
    const size_t end = std::min(list.find(',', at), list.size());
    const std::string_view name = list.substr(at, end - at);
    const auto found = std::find_if(kEntries.begin(), kEntries.end(),
                                    [&](const Entry& entry) { return entry.name == name; });
    if (found == kEntries.end()) {
      *error = "there is no operation \"" + std::string(name) + "\"; there are " + OperationNames();
      return false;
    }
    kept[static_cast<size_t>(found - kEntries.begin())] = true;
    at = end + 1;
  }
  for (size_t i = 0; i < kOperations; ++i) {
    if (!kept[i]) weights_[i] = 0;
  }
  if (std::accumulate(weights_.begin(), weights_.end(), 0u) > 0) return true;
  *error = "this kind of memory has none of the operations " + std::string(list);
  return false;
}

void OperationMix::Drop(Operation operation) { weights_[static_cast<size_t>(operation)] = 0; }

Operation OperationMix::Choose(Random* random) const {
  uint64_t at = random->Below(std::accumulate(weights_.begin(), weights_.end(), uint64_t{0}));
  size_t i = 0;
  while (at >= weights_[i]) at -= weights_[i++];
  return static_cast<Operation>(i);
}

}  // namespace faultline::churn
