// SPDX-License-Identifier: Apache-2.0
#include "client/simulate/access_pattern.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

namespace faultline {
namespace {

// Of all of one run: an index of 4 bytes per page, and the sums of zipf, are in memory.
constexpr uint64_t kMaxPages = uint64_t{1} << 28;

using Random = std::mt19937_64;
// The page of access i; what is beyond the last page is taken modulo their number.
using NextPage = std::function<uint64_t(uint64_t i)>;

// Ranks by the zipf distribution, on pages that lie in no order.
class ZipfPages {
 public:
  ZipfPages(uint64_t pages, Random* random) : random_(random), sums_(pages), places_(pages) {
    double sum = 0;
    for (uint64_t i = 0; i < pages; ++i) {
      sums_[i] = sum += 1 / std::pow(static_cast<double>(i + 1), 0.99);
    }
    std::iota(places_.begin(), places_.end(), 0u);
    Shuffle();
  }

  void Shuffle() { std::shuffle(places_.begin(), places_.end(), *random_); }

  uint64_t Next() {
    const double at = std::uniform_real_distribution<double>(0, sums_.back())(*random_);
    const auto rank = std::lower_bound(sums_.begin(), sums_.end(), at) - sums_.begin();
    return places_[static_cast<size_t>(rank)];
  }

 private:
  Random* const random_;
  std::vector<double> sums_;
  std::vector<uint32_t> places_;
};

NextPage Zipf(const PatternOptions& options, Random* random) {
  const auto zipf = std::make_shared<ZipfPages>(options.pages.raw(), random);
  return [zipf](uint64_t) { return zipf->Next(); };
}

NextPage Phases(const PatternOptions& options, Random* random) {
  const auto zipf = std::make_shared<ZipfPages>(options.pages.raw(), random);
  const uint64_t phase = std::max<uint64_t>(1, options.accesses / 4);
  return [zipf, phase](uint64_t i) {
    if (i > 0 && i % phase == 0) zipf->Shuffle();
    return zipf->Next();
  };
}

NextPage Runs(const PatternOptions& options, Random* random) {
  return [random, pages = options.pages.raw(), run = uint64_t{0}](uint64_t i) mutable {
    if (i % 6 == 0) run = (*random)() % pages;
    return run + i % 6;
  };
}

NextPage Drift(const PatternOptions&, Random* random) {
  return [random, place = uint64_t{0}](uint64_t) mutable {
    if ((*random)() % 8 == 0) place += (*random)() % 3;
    return place + (*random)() % ((*random)() % 2 == 0 ? 200 : 4000);
  };
}

// Null for an unknown name.
NextPage Find(absl::string_view pattern, const PatternOptions& options, Random* random) {
  const uint64_t pages = options.pages.raw();
  if (pattern == "seq") return [](uint64_t i) { return i; };
  if (pattern == "reverse") return [pages](uint64_t i) { return pages - 1 - i % pages; };
  if (pattern == "stride") return [](uint64_t i) { return i * 7; };
  if (pattern == "streams") return [pages](uint64_t i) { return i % 4 * (pages / 4) + i / 4; };
  if (pattern == "runs") return Runs(options, random);
  if (pattern == "random") return [random, pages](uint64_t) { return (*random)() % pages; };
  if (pattern == "zipf") return Zipf(options, random);
  if (pattern == "scan-zipf") {
    return [zipf = Zipf(options, random)](uint64_t i) { return i % 2 == 0 ? i / 2 : zipf(i); };
  }
  if (pattern == "phases") return Phases(options, random);
  if (pattern == "drift") return Drift(options, random);
  return nullptr;
}

}  // namespace

absl::StatusOr<AccessSequence> GenerateAccesses(absl::string_view pattern,
                                                const PatternOptions& options) {
  if (options.pages == PageCount(0) || options.pages > PageCount(kMaxPages)) {
    return absl::InvalidArgumentError(
        absl::StrCat("a pattern has 1 to ", kMaxPages, " pages, and not ", options.pages.raw()));
  }
  Random random(options.seed);
  const NextPage next = Find(pattern, options, &random);
  if (next == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(
        "unknown pattern \"", pattern, "\"; known are ",
        absl::StrJoin(kAccessPatterns, ", ", [](std::string* out, const AccessPattern& known) {
          out->append(known.name.data(), known.name.size());
        })));
  }
  // Of its own, so that the pages are the same whatever is written.
  Random writes(options.seed + 1);
  std::bernoulli_distribution is_write(options.write_share);
  AccessSequence sequence;
  sequence.volume = options.pages;
  sequence.accesses.reserve(options.accesses);
  for (uint64_t i = 0; i < options.accesses; ++i) {
    sequence.accesses.emplace_back(PageIndex(next(i) % options.pages.raw()),
                                   is_write(writes) ? AccessKind::kWrite : AccessKind::kRead);
  }
  return sequence;
}

}  // namespace faultline
