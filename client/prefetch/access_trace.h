// SPDX-License-Identifier: Apache-2.0
//
// For tests: kinds of programs, as the pages that they touch, and what a policy makes of them.
#ifndef FAULTLINE_CLIENT_PREFETCH_ACCESS_TRACE_H_
#define FAULTLINE_CLIENT_PREFETCH_ACCESS_TRACE_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <unordered_map>
#include <vector>

#include "client/prefetch/prefetcher.h"

namespace faultline {

struct AccessTrace {
  std::string name;
  std::vector<uint64_t> pages;
};

inline constexpr uint64_t kTracePages = 16384;
inline constexpr size_t kTraceLength = 160'000;

// Ranks by the zipf distribution with exponent .99, on pages that lie in no order.
inline std::function<uint64_t()> ZipfPages(std::mt19937_64* random) {
  auto sums = std::make_shared<std::vector<double>>(kTracePages);
  double sum = 0;
  for (uint64_t i = 0; i < kTracePages; ++i) {
    (*sums)[i] = sum += 1 / std::pow(static_cast<double>(i + 1), 0.99);
  }
  auto places = std::make_shared<std::vector<uint64_t>>(kTracePages);
  std::iota(places->begin(), places->end(), 0);
  std::shuffle(places->begin(), places->end(), *random);
  return [=] {
    const double at = std::uniform_real_distribution<double>(0, sum)(*random);
    const auto rank = std::lower_bound(sums->begin(), sums->end(), at) - sums->begin();
    return (*places)[static_cast<size_t>(rank)];
  };
}

inline std::vector<AccessTrace> AllTraces(uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto uniform = [&](uint64_t n) { return random() % n; };
  const auto make = [](std::string name, const std::function<uint64_t(size_t)>& page) {
    AccessTrace trace{std::move(name), {}};
    for (size_t i = 0; i < kTraceLength; ++i) trace.pages.push_back(page(i) % kTracePages);
    return trace;
  };
  const std::function<uint64_t()> zipf = ZipfPages(&random);
  std::vector<AccessTrace> traces;
  traces.push_back(make("seq", [](size_t i) { return i; }));
  traces.push_back(make("reverse", [](size_t i) { return kTraceLength - i; }));
  traces.push_back(make("stride 7", [](size_t i) { return i * 7; }));
  traces.push_back(make("4 streams", [](size_t i) { return i % 4 * (kTracePages / 4) + i / 4; }));
  uint64_t run = 0;
  traces.push_back(make("short runs", [&](size_t i) {
    if (i % 6 == 0) run = uniform(kTracePages);
    return run + i % 6;
  }));
  traces.push_back(make("random", [&](size_t) { return uniform(kTracePages); }));
  traces.push_back(make("zipf", [&](size_t) { return zipf(); }));
  traces.push_back(make("scan + zipf", [&](size_t i) { return i % 2 == 0 ? i / 2 : zipf(); }));
  return traces;
}

struct TraceResult {
  uint64_t misses = 0;  // touches that had to wait for a fetch
  uint64_t hits = 0;    // that found their page staged
  uint64_t moved = 0;   // pages fetched
};

// Runs `trace` in a memory of a quarter of its pages, first in, first out, with `prefetcher`, or
// none where it is null. A guess has arrived before the next touch.
inline TraceResult RunTrace(const AccessTrace& trace, Prefetcher* prefetcher) {
  constexpr size_t kMemory = kTracePages / 4, kStage = 1024;
  enum class Place { kMapped, kStaged };
  std::unordered_map<uint64_t, Place> places;
  std::deque<uint64_t> mapped, staged;
  TraceResult result;
  const auto map = [&](uint64_t page) {
    places[page] = Place::kMapped;
    mapped.push_back(page);
    if (mapped.size() <= kMemory) return;
    places.erase(mapped.front());
    mapped.pop_front();
  };
  const auto stage = [&](uint64_t page) {
    places[page] = Place::kStaged;
    staged.push_back(page);
    if (staged.size() <= kStage) return;
    const uint64_t oldest = staged.front();
    staged.pop_front();
    const auto at = places.find(oldest);
    if (at == places.end() || at->second != Place::kStaged) return;
    places.erase(at);
    prefetcher->OnWaste(PageIndex(oldest));
  };
  std::vector<Guess> guesses;
  for (uint64_t page : trace.pages) {
    const auto at = places.find(page);
    if (at != places.end() && at->second == Place::kMapped) continue;
    const bool hit = at != places.end();
    hit ? ++result.hits : ++result.misses;
    result.moved += !hit;
    map(page);
    if (prefetcher == nullptr) continue;
    guesses.clear();
    prefetcher->OnTouch(PageIndex(page), hit ? TouchKind::kHit : TouchKind::kMiss, &guesses);
    for (const Guess& guess : guesses) {
      for (PageIndex p = guess.pages.first; p < guess.pages.end(); ++p) {
        if (p.raw() >= kTracePages || places.contains(p.raw())) continue;
        ++result.moved;
        guess.placement == Placement::kMapped ? map(p.raw()) : stage(p.raw());
      }
    }
  }
  return result;
}

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_PREFETCH_ACCESS_TRACE_H_
