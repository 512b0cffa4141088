// SPDX-License-Identifier: Apache-2.0
//
// faultline-touch: a program whose memory is a volume. It maps one through libfaultline, touches
// its pages with several threads, times every touch, and prints what it saw as one line of JSON.
// The other half of `faultline demo` and `faultline bench`.
//
//   hash      the threads take blocks of 256 KiB in turn and touch their pages, and one more thread
//             computes the SHA-256 of all bytes, in order, behind them
//   random, seq, stride, zipf
//             each thread does its share of the touches; see touch_order.h
//   drain     touches nothing, and waits until the agent has filled every page
#include <openssl/evp.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "client/bench/page_content.h"
#include "client/bench/touch_order.h"
#include "client/lib/faultline.h"

namespace {

namespace bench = faultline::bench;

using Clock = std::chrono::steady_clock;

constexpr uint64_t kPageBytes = 4096;
constexpr uint64_t kBlockBytes = 256 << 10;

struct Options {
  std::string socket, volume, mode = "hash", memory = "private";
  uint64_t size_bytes = 0;
  uint64_t touches = 0;  // 0: as many as the mode has
  unsigned threads = 4;
  uint64_t seed = 1;
  std::string latencies_path;
  std::string verify;  // empty: nothing is verified
  uint64_t content_seed = 1;
  bool hold = false;
};

double Micros(Clock::duration d) { return std::chrono::duration<double, std::micro>(d).count(); }

// What one thread has touched: microseconds of every touch, and when it began and ended, in
// nanoseconds of the monotonic clock, added up (modulo 2^64).
struct Touched {
  std::vector<double> micros;
  uint64_t begin_ns_sum = 0, end_ns_sum = 0;

  void Touch(const volatile unsigned char* page) {
    const auto nanoseconds = [](Clock::time_point time) {
      return static_cast<uint64_t>(std::chrono::nanoseconds(time.time_since_epoch()).count());
    };
    const auto begin = Clock::now();
    static_cast<void>(*page);
    const auto end = Clock::now();
    micros.push_back(Micros(end - begin));
    begin_ns_sum += nanoseconds(begin);
    end_ns_sum += nanoseconds(end);
  }
};

// By thread.
using Latencies = std::vector<Touched>;

std::string HashWhileTouching(const unsigned char* bytes, const Options& options,
                              Latencies* latencies) {
  const uint64_t blocks = (options.size_bytes + kBlockBytes - 1) / kBlockBytes;
  std::atomic<uint64_t> next_block = 0;
  const auto touched = std::make_unique<std::atomic<bool>[]>(blocks);
  std::vector<std::thread> threads;
  for (auto& mine : *latencies) {
    threads.emplace_back([&] {
      for (uint64_t block; (block = next_block++) < blocks;) {
        const uint64_t end = std::min(options.size_bytes, (block + 1) * kBlockBytes);
        for (uint64_t at = block * kBlockBytes; at < end; at += kPageBytes) {
          mine.Touch(bytes + at);
        }
        touched[block] = true;
        touched[block].notify_one();
      }
    });
  }
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(),
                                                                        EVP_MD_CTX_free);
  EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr);
  for (uint64_t block = 0; block < blocks; ++block) {
    touched[block].wait(false);
    const uint64_t at = block * kBlockBytes;
    EVP_DigestUpdate(context.get(), bytes + at, std::min(kBlockBytes, options.size_bytes - at));
  }
  for (std::thread& thread : threads) thread.join();
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned length = 0;
  EVP_DigestFinal_ex(context.get(), digest, &length);
  std::string hex;
  for (unsigned i = 0; i < length; ++i) {
    char two[3];
    snprintf(two, sizeof two, "%02x", digest[i]);
    hex += two;
  }
  return hex;
}

void TouchShares(const unsigned char* bytes, const std::vector<uint64_t>& touches,
                 Latencies* latencies) {
  std::vector<std::thread> threads;
  const size_t share = (touches.size() + latencies->size() - 1) / latencies->size();
  for (size_t t = 0; t < latencies->size(); ++t) {
    threads.emplace_back([&, t] {
      const size_t end = std::min(touches.size(), (t + 1) * share);
      Touched& mine = (*latencies)[t];
      mine.micros.reserve(share);
      for (size_t i = t * share; i < end; ++i) {
        mine.Touch(bytes + touches[i] * kPageBytes);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// Looks at the page tables, not at the pages: a touch would be a fault.
void WaitUntilPresent(const unsigned char* bytes, uint64_t pages) {
  constexpr uint64_t kPagesAtOnce = 4096;
  constexpr auto kPause = std::chrono::microseconds(200);
  std::vector<unsigned char> present(kPagesAtOnce);
  for (uint64_t first = 0; first < pages;) {
    const uint64_t count = std::min(kPagesAtOnce, pages - first);
    void* address = const_cast<unsigned char*>(bytes + first * kPageBytes);
    uint64_t done = 0;
    if (mincore(address, count * kPageBytes, present.data()) == 0) {
      while (done < count && (present[done] & 1) != 0) ++done;
    }
    first += done;
    if (done < count) std::this_thread::sleep_for(kPause);
  }
}

// The pages, of those that were touched, whose bytes are wrong.
uint64_t CountWrongPages(const unsigned char* bytes, const std::vector<uint64_t>& touched,
                         const bench::PageContent& content) {
  std::vector<std::byte> right(kPageBytes);
  uint64_t wrong = 0;
  for (const uint64_t page : touched) {
    content.Fill(faultline::PageIndex(page), right.data());
    wrong += memcmp(bytes + page * kPageBytes, right.data(), kPageBytes) != 0;
  }
  return wrong;
}

bool WriteLatencies(const std::string& path, const Latencies& latencies) {
  FILE* file = fopen(path.c_str(), "we");
  bool written = file != nullptr;
  for (const auto& mine : latencies) {
    const std::vector<double>& micros = mine.micros;
    written =
        written && fwrite(micros.data(), sizeof(double), micros.size(), file) == micros.size();
  }
  return (file == nullptr || fclose(file) == 0) && written;
}

nlohmann::json Quantiles(const Latencies& latencies) {
  std::vector<double> all;
  uint64_t begin_ns_sum = 0, end_ns_sum = 0;
  for (const auto& mine : latencies) {
    all.insert(all.end(), mine.micros.begin(), mine.micros.end());
    begin_ns_sum += mine.begin_ns_sum;
    end_ns_sum += mine.end_ns_sum;
  }
  std::sort(all.begin(), all.end());
  const auto at = [&](double fraction) {
    return all.empty() ? 0.0
                       : all[static_cast<size_t>(fraction * static_cast<double>(all.size() - 1))];
  };
  return {{"touches", all.size()},   {"p50_us", at(0.5)}, {"p90_us", at(0.9)},
          {"p99_us", at(0.99)},      {"max_us", at(1)},   {"begin_ns_sum", begin_ns_sum},
          {"end_ns_sum", end_ns_sum}};
}

// In the order of the mode, of a memory of this size.
std::vector<uint64_t> PlanTouches(const Options& options, uint64_t size_bytes) {
  const uint64_t pages = (size_bytes + kPageBytes - 1) / kPageBytes;
  if (const std::optional<bench::TouchOrder> order = bench::ParseTouchOrder(options.mode)) {
    return bench::MakeTouches(*order, pages, options.touches, options.seed);
  }
  return bench::MakeTouches(bench::TouchOrder::kSequential, pages, 0, options.seed);
}

// What was asked for; `started` is when the memory was about to be mapped.
nlohmann::json Work(const unsigned char* bytes, const Options& options,
                    const std::vector<uint64_t>& touches, Clock::time_point started,
                    Latencies* latencies) {
  nlohmann::json result;
  if (options.mode == "drain") {
    WaitUntilPresent(bytes, touches.size());
  } else if (options.mode == "hash") {
    started = Clock::now();
    result["sha256"] = HashWhileTouching(bytes, options, latencies);
  } else {
    started = Clock::now();
    TouchShares(bytes, touches, latencies);
  }
  result["seconds"] = Micros(Clock::now() - started) / 1e6;
  result.update(Quantiles(*latencies));
  if (!options.verify.empty()) {
    const bench::PageContent content{
        options.verify == "half" ? bench::PageContent::kHalf : bench::PageContent::kRandom,
        options.content_seed};
    result["verified_pages"] = touches.size();
    result["wrong_pages"] = CountWrongPages(bytes, touches, content);
  }
  return result;
}

int Run(Options options) {
  faultline_map_options map = FAULTLINE_MAP_OPTIONS_INIT;
  map.socket_path = options.socket.c_str();
  map.volume = options.volume.c_str();
  map.memory = options.memory == "memfd" ? FAULTLINE_MAP_SHARED : FAULTLINE_MAP_PRIVATE;
  faultline_mapping* mapping = nullptr;
  faultline_error error;
  // Before there is memory, which an agent may be filling while its touches are planned.
  std::vector<uint64_t> touches;
  if (options.size_bytes > 0) touches = PlanTouches(options, options.size_bytes);
  const auto started = Clock::now();
  if (faultline_map(&map, &mapping, &error) < 0) {
    fprintf(stderr, "faultline-touch: %s\n", error.message);
    return 1;
  }
  const auto* bytes = static_cast<const unsigned char*>(faultline_address(mapping));
  if (options.size_bytes == 0 || options.size_bytes > faultline_length(mapping)) {
    options.size_bytes = faultline_length(mapping);
    touches = PlanTouches(options, options.size_bytes);
  }
  Latencies latencies(options.threads);
  nlohmann::json result = Work(bytes, options, touches, started, &latencies);
  result["attachment"] = faultline_attachment(mapping);
  if (!options.latencies_path.empty() && !WriteLatencies(options.latencies_path, latencies)) {
    perror("faultline-touch: cannot write the latencies");
    return 1;
  }
  printf("%s\n", result.dump().c_str());
  fflush(stdout);
  // So that the other side can ask the agent about the attachment before it ends.
  char c;
  while (options.hold && read(STDIN_FILENO, &c, 1) > 0) {
  }
  if (faultline_unmap(mapping, &error) < 0) {
    fprintf(stderr, "faultline-touch: %s\n", error.message);
    return 1;
  }
  if (result.value("wrong_pages", 0) == 0) return 0;
  fprintf(stderr, "faultline-touch: %s of %s touched pages have wrong bytes\n",
          result["wrong_pages"].dump().c_str(), result["verified_pages"].dump().c_str());
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Maps a volume and touches every page of it.", "faultline-touch");
  app.add_option("--socket", options.socket, "Handover socket of the agent")->required();
  app.add_option("--volume", options.volume, "Volume to map")->required();
  app.add_option("--mode", options.mode, "hash, random, seq, stride, zipf or drain")
      ->check(CLI::IsMember({"hash", "random", "seq", "stride", "zipf", "drain"}))
      ->capture_default_str();
  app.add_option("--memory", options.memory, "private or memfd")
      ->check(CLI::IsMember({"private", "memfd"}))
      ->capture_default_str();
  app.add_option("--size", options.size_bytes, "Bytes to touch; 0: all")->capture_default_str();
  app.add_option("--touches", options.touches, "Most touches; 0: all that the mode has")
      ->capture_default_str();
  app.add_option("--latencies", options.latencies_path,
                 "File for the microseconds of each touch, as doubles of this machine");
  app.add_option("--verify", options.verify,
                 "Compare the touched pages, afterwards, with what a benchmark has put there: "
                 "random or half")
      ->check(CLI::IsMember({"random", "half"}));
  app.add_option("--content-seed", options.content_seed, "Of what is there")->capture_default_str();
  app.add_option("--threads", options.threads, "Threads that touch")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_option("--seed", options.seed, "Of the random order")->capture_default_str();
  app.add_flag("--hold", options.hold, "Keep the mapping until the standard input ends");
  CLI11_PARSE(app, argc, argv);
  return Run(options);
}
