// SPDX-License-Identifier: Apache-2.0
//
// faultline-touch: a program whose memory is a volume. It maps one through libfaultline, touches
// its pages with several threads, times every touch, and prints what it saw as one line of JSON.
// The other half of `faultline demo` and `faultline bench`.
//
//   hash      the threads take blocks of 256 KiB in turn and touch their pages, and one more thread
//             computes the SHA-256 of all bytes, in order, behind them
//   random    each thread touches its share of the pages, in random order
//   seq       each thread touches its share of the pages, in ascending order
#include <openssl/evp.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "client/lib/faultline.h"

namespace {

using Clock = std::chrono::steady_clock;

constexpr uint64_t kPageBytes = 4096;
constexpr uint64_t kBlockBytes = 256 << 10;

struct Options {
  std::string socket, volume, mode = "hash", memory = "private";
  uint64_t size_bytes = 0;
  unsigned threads = 4;
  uint64_t seed = 1;
  bool hold = false;
};

double Micros(Clock::duration d) { return std::chrono::duration<double, std::micro>(d).count(); }

double TouchPage(const volatile unsigned char* page) {
  const auto start = Clock::now();
  static_cast<void>(*page);
  return Micros(Clock::now() - start);
}

// Microseconds of every touch, by thread.
using Latencies = std::vector<std::vector<double>>;

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
          mine.push_back(TouchPage(bytes + at));
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

void TouchShares(const unsigned char* bytes, const Options& options, Latencies* latencies) {
  std::vector<uint64_t> order((options.size_bytes + kPageBytes - 1) / kPageBytes);
  for (uint64_t i = 0; i < order.size(); ++i) order[i] = i;
  if (options.mode == "random") {
    std::shuffle(order.begin(), order.end(), std::mt19937_64(options.seed));
  }
  std::vector<std::thread> threads;
  const size_t share = (order.size() + latencies->size() - 1) / latencies->size();
  for (size_t t = 0; t < latencies->size(); ++t) {
    threads.emplace_back([&, t] {
      const size_t end = std::min(order.size(), (t + 1) * share);
      std::vector<double>& mine = (*latencies)[t];
      mine.reserve(share);
      for (size_t i = t * share; i < end; ++i) {
        mine.push_back(TouchPage(bytes + order[i] * kPageBytes));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

nlohmann::json Quantiles(const Latencies& latencies) {
  std::vector<double> all;
  for (const auto& mine : latencies) all.insert(all.end(), mine.begin(), mine.end());
  std::sort(all.begin(), all.end());
  const auto at = [&](double fraction) {
    return all.empty() ? 0.0
                       : all[static_cast<size_t>(fraction * static_cast<double>(all.size() - 1))];
  };
  return {{"touches", all.size()},
          {"p50_us", at(0.5)},
          {"p90_us", at(0.9)},
          {"p99_us", at(0.99)},
          {"max_us", at(1)}};
}

int Run(Options options) {
  faultline_map_options map = FAULTLINE_MAP_OPTIONS_INIT;
  map.socket_path = options.socket.c_str();
  map.volume = options.volume.c_str();
  map.memory = options.memory == "memfd" ? FAULTLINE_MAP_SHARED : FAULTLINE_MAP_PRIVATE;
  faultline_mapping* mapping = nullptr;
  faultline_error error;
  if (faultline_map(&map, &mapping, &error) < 0) {
    fprintf(stderr, "faultline-touch: %s\n", error.message);
    return 1;
  }
  const auto* bytes = static_cast<const unsigned char*>(faultline_address(mapping));
  if (options.size_bytes == 0 || options.size_bytes > faultline_length(mapping)) {
    options.size_bytes = faultline_length(mapping);
  }
  Latencies latencies(options.threads);
  nlohmann::json result;
  const auto start = Clock::now();
  if (options.mode == "hash") {
    result["sha256"] = HashWhileTouching(bytes, options, &latencies);
  } else {
    TouchShares(bytes, options, &latencies);
  }
  const double seconds = Micros(Clock::now() - start) / 1e6;
  result.update(Quantiles(latencies));
  result["seconds"] = seconds;
  result["attachment"] = faultline_attachment(mapping);
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
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Maps a volume and touches every page of it.", "faultline-touch");
  app.add_option("--socket", options.socket, "Handover socket of the agent")->required();
  app.add_option("--volume", options.volume, "Volume to map")->required();
  app.add_option("--mode", options.mode, "hash, random or seq")
      ->check(CLI::IsMember({"hash", "random", "seq"}))
      ->capture_default_str();
  app.add_option("--memory", options.memory, "private or memfd")
      ->check(CLI::IsMember({"private", "memfd"}))
      ->capture_default_str();
  app.add_option("--size", options.size_bytes, "Bytes to touch; 0: all")->capture_default_str();
  app.add_option("--threads", options.threads, "Threads that touch")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_option("--seed", options.seed, "Of the random order")->capture_default_str();
  app.add_flag("--hold", options.hold, "Keep the mapping until the standard input ends");
  CLI11_PARSE(app, argc, argv);
  return Run(options);
}
