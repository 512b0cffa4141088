// SPDX-License-Identifier: Apache-2.0
//
// A program on paged memory that checks its own bytes. It maps a volume through an agent, prints
// "mapped attachment=ID pages=N", and then does what the lines of its standard input say, one
// answer line each, until the input ends; then it unmaps and exits with 0.
//
//   check [FIRST COUNT]   every page (or those) by one of the threads: "check pages=N right=N ..."
//   race [FIRST COUNT]    every page by all of the threads
//   write FIRST COUNT     overwrites pages; they are expected to stay so
//   unmap                 unmaps, and says "unmapped"
//
// What is printed for a check: page_check.h. An error of the library: "error CODE MESSAGE" on
// stderr, exit 2.
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include <iostream>
#include <memory>
#include <sstream>
#include <string>

#include "client/lib/faultline.h"
#include "deploy/e2e/page_check.h"

namespace faultline::e2e {
namespace {

constexpr int kExitRefused = 2;

struct Flags {
  std::string socket, volume, reference;
  int threads = 1;
  faultline_map_options map = FAULTLINE_MAP_OPTIONS_INIT;
};

[[noreturn]] void Usage() {
  fprintf(stderr,
          "usage: toucher --socket=PATH --volume=NAME [--reference=FILE] [--threads=N]\n"
          "               [--memory=anon|memfd] [--on-agent-loss=kill|wait] [--timeout-ms=N]\n"
          "               [--offset=BYTES] [--length=BYTES]\n");
  exit(64);
}

// The value of `text`, of two.
int OneOf(const std::string& text, const char* zero, const char* one) {
  if (text == zero) return 0;
  if (text == one) return 1;
  Usage();
}

Flags ParseFlags(int argc, char** argv) {
  constexpr option kOptions[] = {
      {"socket", 1, nullptr, 's'},        {"volume", 1, nullptr, 'v'},
      {"reference", 1, nullptr, 'r'},     {"threads", 1, nullptr, 't'},
      {"memory", 1, nullptr, 'm'},        {"timeout-ms", 1, nullptr, 'w'},
      {"on-agent-loss", 1, nullptr, 'l'}, {"offset", 1, nullptr, 'o'},
      {"length", 1, nullptr, 'n'},        {nullptr, 0, nullptr, 0}};
  Flags flags;
  for (int c; (c = getopt_long(argc, argv, "", kOptions, nullptr)) != -1;) {
    const std::string value = optarg == nullptr ? "" : optarg;
    switch (c) {
      case 's':
        flags.socket = value;
        break;
      case 'v':
        flags.volume = value;
        break;
      case 'r':
        flags.reference = value;
        break;
      case 't':
        flags.threads = static_cast<int>(ParseNumber(value));
        break;
      case 'm':
        flags.map.memory =
            OneOf(value, "anon", "memfd") == 0 ? FAULTLINE_MAP_PRIVATE : FAULTLINE_MAP_SHARED;
        break;
      case 'l':
        flags.map.on_agent_loss = OneOf(value, "kill", "wait") == 0 ? FAULTLINE_ON_AGENT_LOSS_KILL
                                                                    : FAULTLINE_ON_AGENT_LOSS_WAIT;
        break;
      case 'w':
        flags.map.timeout_ms = static_cast<unsigned>(ParseNumber(value));
        break;
      case 'o':
        flags.map.offset = ParseNumber(value);
        break;
      case 'n':
        flags.map.length = ParseNumber(value);
        break;
      default:
        Usage();
    }
  }
  if (optind != argc || flags.socket.empty() || flags.volume.empty()) Usage();
  return flags;
}

// What `call` returned with `error`; ends the program where that is no success.
void OrRefused(int result, const faultline_error& error) {
  if (result == 0) return;
  fprintf(stderr, "error %d %s\n", result, error.message);
  exit(kExitRefused);
}

int Main(int argc, char** argv) {
  Flags flags = ParseFlags(argc, argv);
  flags.map.socket_path = flags.socket.c_str();
  flags.map.volume = flags.volume.c_str();
  faultline_mapping* mapping = nullptr;
  faultline_error error;
  OrRefused(faultline_map(&flags.map, &mapping, &error), error);
  auto* memory = static_cast<std::byte*>(faultline_address(mapping));
  ExpectedPages expected(flags.reference, faultline_length(mapping) / kPageBytes);
  std::cout << "mapped attachment=" << faultline_attachment(mapping)
            << " pages=" << expected.pages() << std::endl;

  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    std::string command;
    ExpectedPages::Range range{0, expected.pages()};
    words >> command >> range.first >> range.count;
    if (words.fail()) range = {0, expected.pages()};
    if (range.first > expected.pages() || range.count > expected.pages() - range.first) Usage();
    if (command == "check" || command == "race") {
      const auto sharing = command == "check" ? ExpectedPages::Sharing::kSplit  //
                                              : ExpectedPages::Sharing::kRace;
      std::cout << command << ' ' << expected.Check(memory, range, flags.threads, sharing)
                << std::endl;
    } else if (command == "write") {
      std::cout << "write " << expected.Write(memory, range) << std::endl;
    } else if (command == "unmap") {
      break;
    } else {
      Usage();
    }
  }
  OrRefused(faultline_unmap(mapping, &error), error);
  std::cout << "unmapped" << std::endl;
  return 0;
}

}  // namespace
}  // namespace faultline::e2e

int main(int argc, char** argv) { return faultline::e2e::Main(argc, argv); }
