// SPDX-License-Identifier: Apache-2.0
//
// What Faultline adds to what RADOS itself takes: the same accesses by librados alone, and through
// servers, in turns, on the cluster of deploy/rados-cluster.
//
//   rados_benchmark CONF [SECONDS]     a line for each access and way; times in microseconds
//
//   read page         one page of 4 KiB anywhere
//   read 64 KiB       16 neighbouring pages, ascending
//   write 16 pages    of one extent, scattered, in one call
//   write 8 extents   16 scattered pages of each, in one call, against operations under way at the
//                     same time
//
//   raw               librados
//   server            a server with a cache that is too small to be of use
//   cached            one that has all in its cache
//   rocksdb           one on RocksDB, for comparison with cached
#include <absl/strings/str_cat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "client/bench/served_volume.h"

#include <rados/librados.hpp>

namespace faultline::bench {
namespace {

using std::chrono::steady_clock;

constexpr uint64_t kExtents = 128;  // 32 MiB
constexpr uint64_t kPagesInExtent = 64;
constexpr uint64_t kPages = kExtents * kPagesInExtent;

void Check(bool ok, const char* what) {
  Require(ok ? absl::OkStatus() : absl::UnknownError(""), what);
}

// Every fourth page of `extents` neighbouring extents.
std::vector<uint64_t> ScatteredPages(uint64_t extent, uint64_t extents) {
  std::vector<uint64_t> pages;
  for (uint64_t page = extent * kPagesInExtent; page < (extent + extents) * kPagesInExtent;
       page += 4) {
    pages.push_back(page);
  }
  return pages;
}

// One way to the pages.
class Subject {
 public:
  explicit Subject(const char* name) : name_(name) {}
  virtual ~Subject() = default;
  const char* name() const { return name_; }
  virtual void Read(uint64_t first, uint64_t count) = 0;
  // ScatteredPages().
  virtual void Write(uint64_t extent, uint64_t extents) = 0;

 private:
  const char* const name_;
};

class ThroughServer final : public Subject {
 public:
  ThroughServer(const char* name, const std::string& path, const std::vector<std::string>& flags)
      : Subject(name), volume_(path, flags, kPages) {
    for (uint64_t page = 0; page < kPages; page += 64) volume_.Read(page, 64);
  }
  void Read(uint64_t first, uint64_t count) override { volume_.Read(first, count); }
  void Write(uint64_t extent, uint64_t extents) override {
    volume_.Write(ScatteredPages(extent, extents));
  }

 private:
  ServedVolume volume_;
};

class RawRados final : public Subject {
 public:
  explicit RawRados(librados::IoCtx* io) : Subject("raw"), io_(io), page_(kPageSize, 'x') {
    for (uint64_t extent = 0; extent < kExtents; ++extent) {
      librados::bufferlist bytes;
      bytes.append(std::string(kPagesInExtent * kPageSize, 'x'));
      Check(io_->write_full(Object(extent), bytes) == 0, "filling objects");
    }
  }
  void Read(uint64_t first, uint64_t count) override {
    librados::bufferlist bytes;
    const int result = io_->read(Object(first / kPagesInExtent), bytes, count * kPageSize,
                                 first % kPagesInExtent * kPageSize);
    Check(result == static_cast<int>(count * kPageSize), "reading by librados");
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
      Check(completion->get_return_value() == 0, "writing by librados");
      completion->release();
    }
  }

 private:
  static std::string Object(uint64_t extent) { return absl::StrCat("raw.", extent); }

  librados::IoCtx* const io_;
  const std::string page_;
};

struct Access {
  const char* name;
  uint64_t bytes;
  std::function<void(Subject&, std::mt19937_64&)> run;
};

// In turns of a tenth of a second, so that what else the machine does meets all.
void Measure(const Access& access, const std::vector<std::unique_ptr<Subject>>& subjects,
             int seconds) {
  std::mt19937_64 random(1);
  std::vector<std::vector<double>> times(subjects.size());
  std::vector<double> total(subjects.size());
  for (size_t turn = 0; turn < static_cast<size_t>(seconds) * 10 * subjects.size(); ++turn) {
    const size_t which = turn % subjects.size();
    const auto end = steady_clock::now() + std::chrono::milliseconds(100);
    while (steady_clock::now() < end) {
      const auto began = steady_clock::now();
      access.run(*subjects[which], random);
      times[which].push_back(
          std::chrono::duration<double, std::micro>(steady_clock::now() - began).count());
      total[which] += times[which].back();
    }
  }
  double raw = 0;
  for (size_t which = 0; which < subjects.size(); ++which) {
    std::sort(times[which].begin(), times[which].end());
    const size_t n = times[which].size();
    if (which == 0) raw = times[which][n / 2];
    printf("%-16s %-8s p50 %7.0f  p99 %7.0f  %7.1f MB/s  p50 to raw %5.2f  %zu calls\n",
           access.name, subjects[which]->name(), times[which][n / 2], times[which][n * 99 / 100],
           static_cast<double>(n * access.bytes) / total[which], times[which][n / 2] / raw, n);
  }
  fflush(stdout);
}

int Run(const char* conf, int seconds) {
  // Namespaces of their own for each run, as a layer is filled once only.
  const std::string name = absl::StrCat("pages/benchmark.", time(nullptr));
  librados::Rados cluster;
  librados::IoCtx io;
  Check(cluster.init("admin") == 0 && cluster.conf_read_file(conf) == 0 && cluster.connect() == 0 &&
            cluster.ioctx_create("pages", io) == 0,
        "connecting");
  io.set_namespace(name + ".raw");

  const TemporaryDirectory temporary = MakeDirectory("/var/tmp");
  const std::string& directory = temporary.path();
  const auto rados_flags = [&](const char* way, const char* memory) {
    return std::vector<std::string>{absl::StrCat("--store=rados:", name, ".", way),
                                    absl::StrCat("--rados-conf=", conf),
                                    absl::StrCat("--store-memory=", memory)};
  };
  std::vector<std::unique_ptr<Subject>> subjects;
  subjects.push_back(std::make_unique<RawRados>(&io));
  subjects.push_back(std::make_unique<ThroughServer>("server", directory + "/server",
                                                     rados_flags("server", "1MiB")));
  subjects.push_back(std::make_unique<ThroughServer>("cached", directory + "/cached",
                                                     rados_flags("cached", "256MiB")));
  subjects.push_back(std::make_unique<ThroughServer>(
      "rocksdb", directory + "/rocksdb",
      std::vector<std::string>{absl::StrCat("--store=rocksdb:", directory, "/store")}));
  uint64_t next = 0;
  const Access accesses[] = {
      {"read page", kPageSize, [](Subject& s, auto& random) { s.Read(random() % kPages, 1); }},
      {"read 64 KiB", 16 * kPageSize,
       [&next](Subject& s, auto&) { s.Read(16 * (next++ % (kPages / 16)), 16); }},
      {"write 16 pages", 16 * kPageSize,
       [](Subject& s, auto& random) { s.Write(random() % kExtents, 1); }},
      {"write 8 extents", 128 * kPageSize,
       [](Subject& s, auto& random) { s.Write(random() % (kExtents - 8), 8); }}};
  for (const Access& access : accesses) Measure(access, subjects, seconds);
  return 0;
}

}  // namespace
}  // namespace faultline::bench

int main(int argc, char** argv) {
  if (argc < 2) {
    fprintf(stderr, "usage: rados_benchmark CONF [SECONDS]\n");
    return 2;
  }
  return faultline::bench::Run(argv[1], argc > 2 ? atoi(argv[2]) : 10);
}
