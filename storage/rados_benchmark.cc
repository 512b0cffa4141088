// SPDX-License-Identifier: Apache-2.0
//
// What the store in RADOS adds to what RADOS itself takes: the same accesses through the store and
// by librados alone, in turns, on the cluster of deploy/rados-cluster.
//
//   rados_benchmark CONF [SECONDS]     a line for each access; times in microseconds
//
//   read page         one page of 4 KiB anywhere
//   read 64 KiB       16 neighbouring pages, ascending
//   write 16 pages    of one extent, scattered, in one call
//   write 8 extents   16 scattered pages of each, in one call, against operations under way at the
//                     same time
#include <absl/strings/str_cat.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "proto/page_codec.h"
#include "storage/page_store.h"

#include <rados/librados.hpp>

namespace faultline {
namespace {

using std::chrono::steady_clock;

constexpr uint64_t kExtents = 128;  // 32 MiB
constexpr uint64_t kPagesInExtent = 64;
constexpr uint64_t kPages = kExtents * kPagesInExtent;
constexpr LayerId kLayer(1);

void Require(bool ok, const std::string& what) {
  if (ok) return;
  fprintf(stderr, "rados_benchmark: %s failed\n", what.c_str());
  exit(1);
}

// Full of what no codec makes smaller.
std::string Encoded(uint64_t page, uint64_t version) {
  std::mt19937_64 random(page * 1000 + version);
  std::array<std::byte, kPageSize> bytes;
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  std::string encoded;
  EncodePage(PageIndex(page), bytes, Codec::kRaw, &encoded);
  return encoded;
}

// The same through the store and by librados.
class Subject {
 public:
  virtual ~Subject() = default;
  virtual void Read(uint64_t first, uint64_t count) = 0;
  // Pages of `extents` neighbouring extents, every fourth of each.
  virtual void Write(uint64_t extent, uint64_t extents) = 0;
};

class ThroughStore final : public Subject {
 public:
  explicit ThroughStore(PageStore* store) : store_(store), encoded_(Encoded(0, 0)) {}
  void Read(uint64_t first, uint64_t count) override {
    uint64_t found = 0;
    const auto visit = [&](PageIndex, absl::string_view) {
      ++found;
      return absl::OkStatus();
    };
    const PageRange range{PageIndex(first), PageCount(count)};
    Require(store_->Read(kLayer, range, visit).ok() && found == count, "a read of the store");
  }
  void Write(uint64_t extent, uint64_t extents) override {
    PageWrites writes;
    for (uint64_t page = extent * kPagesInExtent; page < (extent + extents) * kPagesInExtent;
         page += 4) {
      writes.puts.push_back({PageIndex(page), encoded_});
    }
    Require(store_->Write(kLayer, writes, Durability::kSync).ok(), "a write of the store");
  }

 private:
  PageStore* const store_;
  const std::string encoded_;
};

class RawRados final : public Subject {
 public:
  explicit RawRados(librados::IoCtx* io) : io_(io), page_(kPageSize, 'x') {}
  void Read(uint64_t first, uint64_t count) override {
    librados::bufferlist bytes;
    const int result = io_->read(Object(first / kPagesInExtent), bytes, count * kPageSize,
                                 first % kPagesInExtent * kPageSize);
    Require(result == static_cast<int>(count * kPageSize), "a read of librados");
  }
  void Write(uint64_t extent, uint64_t extents) override {
    std::vector<librados::AioCompletion*> completions;
    for (uint64_t i = 0; i < extents; ++i) {
      librados::ObjectWriteOperation op;
      for (uint64_t page = 0; page < kPagesInExtent; page += 4) {
        librados::bufferlist bytes;
        bytes.append(page_);
        op.write(page * kPageSize, bytes);
      }
      completions.push_back(librados::Rados::aio_create_completion());
      io_->aio_operate(Object(extent + i), completions.back(), &op);
    }
    for (librados::AioCompletion* completion : completions) {
      completion->wait_for_complete();
      Require(completion->get_return_value() == 0, "a write of librados");
      completion->release();
    }
  }
  void Fill() {
    for (uint64_t extent = 0; extent < kExtents; ++extent) {
      librados::bufferlist bytes;
      bytes.append(std::string(kPagesInExtent * kPageSize, 'x'));
      Require(io_->write_full(Object(extent), bytes) == 0, "filling");
    }
  }

 private:
  static std::string Object(uint64_t extent) { return absl::StrCat("raw.", extent); }

  librados::IoCtx* const io_;
  const std::string page_;
};

void FillStore(PageStore* store) {
  auto load = store->StartBulkLoad(kLayer);
  Require(load.ok(), "starting to load");
  for (uint64_t page = 0; page < kPages; ++page) {
    Require((*load)->Put(PageIndex(page), Encoded(page, 0)).ok(), "loading");
  }
  Require((*load)->Commit().ok(), "committing the load");
}

struct Access {
  const char* name;
  uint64_t bytes;
  std::function<void(Subject&, std::mt19937_64&)> run;
};

// In turns of a tenth of a second, so that what else the machine does meets both.
void Measure(const Access& access, Subject& store, Subject& raw, int seconds) {
  std::mt19937_64 random(1);
  std::vector<double> times[2];
  double total[2] = {};
  for (int turn = 0; turn < seconds * 10; ++turn) {
    const int which = turn % 2;
    const auto end = steady_clock::now() + std::chrono::milliseconds(100);
    while (steady_clock::now() < end) {
      const auto began = steady_clock::now();
      access.run(which == 0 ? store : raw, random);
      times[which].push_back(
          std::chrono::duration<double, std::micro>(steady_clock::now() - began).count());
      total[which] += times[which].back();
    }
  }
  double median[2];
  for (int which = 0; which < 2; ++which) {
    std::sort(times[which].begin(), times[which].end());
    const size_t n = times[which].size();
    median[which] = times[which][n / 2];
    printf("%-16s %-6s p50 %7.0f  p99 %7.0f  %7.1f MB/s  %zu calls\n", access.name,
           which == 0 ? "store" : "raw", median[which], times[which][n * 99 / 100],
           static_cast<double>(n * access.bytes) / total[which], n);
  }
  printf("%-16s store / raw: %.2f\n", access.name, median[0] / median[1]);
  fflush(stdout);
}

int Run(const char* conf, int seconds) {
  PageStoreOptions options;
  options.rados_conf = conf;
  // A namespace of its own for each run, as a layer is filled once only.
  const std::string name = absl::StrCat("benchmark.", time(nullptr));
  auto store = OpenPageStore("rados:pages/" + name, options);
  if (!store.ok()) {
    fprintf(stderr, "%s\n", store.status().ToString().c_str());
    return 1;
  }
  librados::Rados cluster;
  librados::IoCtx io;
  Require(cluster.init("admin") == 0 && cluster.conf_read_file(conf) == 0 &&
              cluster.connect() == 0 && cluster.ioctx_create("pages", io) == 0,
          "connecting");
  io.set_namespace(name + ".raw");
  FillStore(store->get());
  ThroughStore through(store->get());
  RawRados raw(&io);
  raw.Fill();
  uint64_t next = 0;
  const Access accesses[] = {
      {"read page", kPageSize, [](Subject& s, auto& random) { s.Read(random() % kPages, 1); }},
      {"read 64 KiB", 16 * kPageSize,
       [&next](Subject& s, auto&) { s.Read(16 * (next++ % (kPages / 16)), 16); }},
      {"write 16 pages", 16 * kPageSize,
       [](Subject& s, auto& random) { s.Write(random() % kExtents, 1); }},
      {"write 8 extents", 128 * kPageSize,
       [](Subject& s, auto& random) { s.Write(random() % (kExtents - 8), 8); }}};
  for (const Access& access : accesses) Measure(access, through, raw, seconds);
  return 0;
}

}  // namespace
}  // namespace faultline

int main(int argc, char** argv) {
  if (argc < 2) {
    fprintf(stderr, "usage: rados_benchmark CONF [SECONDS]\n");
    return 2;
  }
  return faultline::Run(argv[1], argc > 2 ? atoi(argv[2]) : 10);
}
