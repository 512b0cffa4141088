// SPDX-License-Identifier: Apache-2.0
//
// A catalog on a real store against a model of it: maps of page to version. Random operations, one
// struct for each, from a seed that is printed; after every few of them all of it is compared.
#include <iostream>
#include <set>

#include "storage/storage_testing.h"
#include "storage/volume_catalog.h"

namespace faultline {
namespace {

using absl::StatusCode;
using Page = std::array<std::byte, kPageSize>;

constexpr uint64_t kModelPages = 48;
constexpr size_t kMostVolumes = 8;

struct ModelVolume {
  bool snapshot = false;
  uint64_t epoch = 0;
  std::map<uint64_t, uint64_t> versions;  // of the pages that are not zero
  std::set<uint64_t> working_set;
};

// The catalog, and what it ought to hold.
struct State {
  std::string spec;
  std::mt19937_64 random;
  std::unique_ptr<VolumeCatalog> catalog;
  std::map<std::string, ModelVolume> model;
  uint64_t next_version = 1;
  uint64_t next_name = 1;

  uint64_t Below(uint64_t end) { return random() % end; }
  PageRange Range() {
    const uint64_t first = Below(kModelPages);
    return Pages(first, Below(kModelPages - first + 1));
  }
  std::string NewName() { return absl::StrCat("v", next_name++); }
  // Any name of the model, now and then one that is not there.
  std::string AnyName() {
    if (model.empty() || Below(20) == 0) return "missing";
    return std::next(model.begin(), static_cast<ptrdiff_t>(Below(model.size())))->first;
  }
  ModelVolume* Modelled(const std::string& name) {
    const auto it = model.find(name);
    return it == model.end() ? nullptr : &it->second;
  }

  void Open() {
    catalog.reset();
    PageStoreOptions options;
    options.memory_bytes = uint64_t{4} << 20;
    auto store = OpenPageStore(spec, options);
    ASSERT_STATUS_OK(store);
    auto opened = VolumeCatalog::Open(*std::move(store));
    ASSERT_STATUS_OK(opened);
    catalog = *std::move(opened);
  }

  void CheckInvariants() {
    const auto list = catalog->List();
    ASSERT_EQ(list.size(), model.size());
    std::set<uint64_t> ids;
    std::set<LayerId> own_layers;  // a layer that is written has one volume
    for (const VolumeInfo& info : list) {
      ASSERT_TRUE(model.contains(info.name)) << info.name;
      const ModelVolume& expected = model[info.name];
      EXPECT_TRUE(ids.insert(info.id).second) << info.name;
      EXPECT_EQ(info.kind == VolumeInfo::Kind::kSnapshot, expected.snapshot) << info.name;
      EXPECT_EQ(info.epoch, expected.epoch) << info.name;
      if (!expected.snapshot) {
        EXPECT_TRUE(own_layers.insert(info.layers[0]).second) << info.name;
      }
      const auto volume = catalog->FindById(info.id);
      ASSERT_STATUS_OK(volume);
      const auto found = ReadVolume(**volume, Pages(0, kModelPages));
      ASSERT_STATUS_OK(found);
      std::map<uint64_t, Page> pages;
      for (const auto& [page, version] : expected.versions) {
        pages[page] = PatternPage(page, version);
      }
      EXPECT_TRUE(SamePages(*found, pages)) << info.name;
      const auto working_set = catalog->GetWorkingSet(info.id);
      ASSERT_STATUS_OK(working_set);
      std::set<uint64_t> members;
      for (uint64_t page = 0; page < kModelPages; ++page) {
        if (working_set->pages().Contains(PageIndex(page))) members.insert(page);
      }
      EXPECT_EQ(members, expected.working_set) << info.name;
    }
    for (const VolumeInfo& info : list) {
      for (size_t i = 1; i < info.layers.size(); ++i) {
        EXPECT_FALSE(own_layers.contains(info.layers[i])) << info.name << " reads a changing layer";
      }
    }
  }
};

// Operations. Each one does the same to the catalog and to the model, and compares how it ends.

struct Create {
  static void Perform(State& s) {
    if (s.model.size() >= kMostVolumes) return;
    const std::string name = s.Below(5) == 0 ? s.AnyName() : s.NewName();
    const bool free = s.Modelled(name) == nullptr;
    const auto info =
        s.catalog->Create(name, kModelPages * kPageSize, static_cast<Durability>(s.Below(3)));
    ASSERT_EQ(info.ok(), free) << info.status();
    if (free) s.model[name] = {};
  }
};

struct TakeEpoch {
  static void Perform(State& s) {
    const std::string name = s.AnyName();
    ModelVolume* const volume = s.Modelled(name);
    const auto info = s.catalog->TakeEpoch(name);
    ASSERT_EQ(info.ok(), volume != nullptr && !volume->snapshot) << info.status();
    if (!info.ok()) return;
    EXPECT_EQ(info->epoch, ++volume->epoch);
  }
};

struct Write {
  static void Perform(State& s) {
    const std::string name = s.AnyName();
    ModelVolume* const volume = s.Modelled(name);
    if (volume == nullptr) return;
    const uint64_t epoch = s.Below(8) == 0 ? volume->epoch - 1 : volume->epoch;
    std::map<uint64_t, uint64_t> pages;
    for (uint64_t i = s.Below(12); i > 0; --i) pages[s.Below(kModelPages)] = s.next_version++;
    // What is written is not trimmed by the same write.
    std::vector<PageRange> trims;
    if (const PageRange range = s.Range(); s.Below(3) == 0) {
      const auto first = pages.lower_bound(range.first.raw());
      if (first == pages.end() || first->first >= range.end().raw()) trims.push_back(range);
    }
    const absl::Status status = WriteVolume(**s.catalog->Find(name), epoch, pages, trims);
    const bool allowed = !volume->snapshot && epoch == volume->epoch && epoch != 0;
    ASSERT_EQ(status.ok(), allowed) << status;
    if (!allowed) {
      EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
      return;
    }
    for (const PageRange range : trims) {
      for (PageIndex page = range.first; page < range.end(); ++page) {
        volume->versions.erase(page.raw());
      }
    }
    for (const auto& [page, version] : pages) volume->versions[page] = version;
  }
};

struct Trim {
  static void Perform(State& s) {
    const std::string name = s.AnyName();
    ModelVolume* const volume = s.Modelled(name);
    if (volume == nullptr) return;
    const PageRange range = s.Range();
    const absl::Status status = (*s.catalog->Find(name))->Trim(range);
    ASSERT_EQ(status.ok(), !volume->snapshot) << status;
    if (!status.ok()) return;
    for (PageIndex page = range.first; page < range.end(); ++page) {
      volume->versions.erase(page.raw());
    }
  }
};

struct Snapshot {
  static void Perform(State& s) {
    if (s.model.size() >= kMostVolumes) return;
    const std::string name = s.AnyName();
    ModelVolume* const volume = s.Modelled(name);
    const std::string to = s.NewName();
    const auto info = s.catalog->Snapshot(name, to);
    if (info.ok()) {
      ASSERT_TRUE(volume != nullptr && !volume->snapshot);
      s.model[to] = {true, 0, volume->versions, volume->working_set};
      return;
    }
    const bool full = volume != nullptr && !volume->snapshot &&
                      (*s.catalog->Find(name))->info().layers.size() == kMaxLayers;
    EXPECT_TRUE(volume == nullptr || volume->snapshot || full) << info.status();
  }
};

struct Clone {
  static void Perform(State& s) {
    if (s.model.size() >= kMostVolumes) return;
    const std::string name = s.AnyName();
    ModelVolume* const snapshot = s.Modelled(name);
    const std::string to = s.NewName();
    const auto info = s.catalog->Clone(name, to);
    ASSERT_EQ(info.ok(), snapshot != nullptr && snapshot->snapshot) << info.status();
    if (info.ok()) s.model[to] = {false, 0, snapshot->versions, snapshot->working_set};
  }
};

struct MergeWorkingSet {
  static void Perform(State& s) {
    const std::string name = s.AnyName();
    ModelVolume* const volume = s.Modelled(name);
    if (volume == nullptr) return;
    if (s.Below(6) == 0) {
      ASSERT_STATUS_OK(s.catalog->ClearWorkingSet(name));
      volume->working_set.clear();
      return;
    }
    absl::StatusOr<WorkingSet> pages = WorkingSet::Create(PageCount(kModelPages));
    ASSERT_STATUS_OK(pages);
    for (uint64_t i = s.Below(6); i > 0; --i) {
      const uint64_t page = s.Below(kModelPages);
      pages->Insert(PageIndex(page));
      volume->working_set.insert(page);
    }
    const auto total = s.catalog->MergeWorkingSet((*s.catalog->Find(name))->info().id, *pages);
    ASSERT_STATUS_OK(total);
    EXPECT_EQ(total->raw(), volume->working_set.size());
  }
};

struct Delete {
  static void Perform(State& s) {
    const std::string name = s.AnyName();
    const absl::Status status = s.catalog->Delete(name);
    ASSERT_EQ(status.ok(), s.model.erase(name) == 1) << status;
  }
};

struct Import {
  static void Perform(State& s) {
    std::string name = s.AnyName();
    if (s.Below(2) == 0 && s.model.size() < kMostVolumes) name = s.NewName();
    ModelVolume* const volume = s.Modelled(name);
    if (volume == nullptr && s.model.size() >= kMostVolumes) return;
    const bool replace = s.Below(2) == 0;
    auto import =
        s.catalog->StartImport(name, {.size_bytes = kModelPages * kPageSize, .replace = replace});
    const bool allowed =
        volume == nullptr || (!volume->snapshot && (replace || volume->versions.empty()));
    ASSERT_EQ(import.ok(), allowed) << import.status();
    if (!allowed) return;
    std::map<uint64_t, uint64_t> pages;
    for (uint64_t i = s.Below(20); i > 0; --i) pages[s.Below(kModelPages)] = s.next_version++;
    for (const auto& [page, version] : pages) {
      ASSERT_STATUS_OK((*import)->Put(PageIndex(page), PatternEncoded(page, version)));
    }
    if (s.Below(3) == 0) return;  // given up
    ASSERT_STATUS_OK((*import)->Commit());
    ModelVolume& imported = s.model[name];
    imported.versions = pages;
    imported.working_set.clear();
    if (imported.epoch > 0) ++imported.epoch;
  }
};

struct Reopen {
  static void Perform(State& s) {
    if (s.spec != "memory:") s.Open();
  }
};

struct Weighted {
  int weight;
  void (*perform)(State&);
};

constexpr Weighted kOperations[] = {{4, Create::Perform},           {8, TakeEpoch::Perform},
                                    {40, Write::Perform},           {10, Trim::Perform},
                                    {6, Snapshot::Perform},         {6, Clone::Perform},
                                    {4, Delete::Perform},           {6, Import::Perform},
                                    {10, MergeWorkingSet::Perform}, {2, Reopen::Perform}};

void Step(State& s) {
  int total = 0;
  for (const Weighted& operation : kOperations) total += operation.weight;
  int drawn = static_cast<int>(s.Below(static_cast<uint64_t>(total)));
  for (const Weighted& operation : kOperations) {
    drawn -= operation.weight;
    if (drawn < 0) return operation.perform(s);
  }
}

void RunModel(const std::string& spec, uint64_t seed, int steps) {
  SCOPED_TRACE(testing::Message() << spec << " seed " << seed);
  std::cout << "seed " << seed << std::endl;
  State state;
  state.spec = spec;
  state.random.seed(seed);
  state.Open();
  for (int step = 0; step < steps && !testing::Test::HasFailure(); ++step) {
    SCOPED_TRACE(testing::Message() << "step " << step);
    Step(state);
    if (step % 10 == 9) state.CheckInvariants();
  }
}

TEST(VolumeModel, HoldsOnTheMemoryStore) {
  for (uint64_t seed = 1; seed <= 10; ++seed) RunModel("memory:", seed, 600);
}

TEST(VolumeModel, HoldsOnRocksDbOpenedAgainAndAgain) {
  for (uint64_t seed = 100; seed < 102; ++seed) {
    TemporaryDirectory directory;
    RunModel("rocksdb:" + directory.path(), seed, 350);
  }
}

}  // namespace
}  // namespace faultline
