// SPDX-License-Identifier: Apache-2.0
//
// faultline demo: the main job, seen to work. A file goes into a volume of a page server; another
// process maps the volume and reads it through its page faults; both digests must be the same.
#include <absl/strings/str_cat.h>
#include <openssl/evp.h>

#include <cstdio>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "client/bench/local_stack.h"
#include "client/cli/command.h"
#include "proto/units.h"

namespace faultline {
namespace {

struct DemoOptions {
  std::string input;
  unsigned threads = 4;
  std::string memory = "private";
  std::string directory;
};

struct Digest {
  std::string sha256;
  uint64_t bytes = 0;
};

absl::StatusOr<Digest> DigestOfFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::NotFoundError(absl::StrCat("cannot read ", path));
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(),
                                                                        EVP_MD_CTX_free);
  EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr);
  Digest digest;
  std::string block(1 << 20, '\0');
  do {
    file.read(block.data(), static_cast<std::streamsize>(block.size()));
    const auto n = static_cast<size_t>(file.gcount());
    EVP_DigestUpdate(context.get(), block.data(), n);
    digest.bytes += n;
  } while (file);
  unsigned char raw[EVP_MAX_MD_SIZE];
  unsigned length = 0;
  EVP_DigestFinal_ex(context.get(), raw, &length);
  for (unsigned i = 0; i < length; ++i) {
    absl::StrAppend(&digest.sha256, absl::Hex(raw[i], absl::kZeroPad2));
  }
  return digest;
}

void Step(const std::string& text) {
  printf("%s\n", text.c_str());
  fflush(stdout);
}

// Runs the reading process; `attachment` is what the agent says of it while it is still there.
absl::StatusOr<nlohmann::json> ReadThroughFaults(const LocalStack& stack,
                                                 const DemoOptions& options, uint64_t bytes,
                                                 nlohmann::json* attachment) {
  absl::StatusOr<HeldProgram> reader = HeldProgram::Start(
      {SiblingProgram("faultline-touch"), "--socket=" + stack.agent_socket(), "--volume=demo",
       "--mode=hash", absl::StrCat("--size=", bytes), absl::StrCat("--threads=", options.threads),
       "--memory=" + options.memory, "--hold"});
  if (!reader.ok()) return reader.status();
  Step(absl::StrCat("reader     pid ", reader->pid(), " maps the volume; ", options.threads,
                    " threads fault, none of its bytes is here yet"));
  const nlohmann::json result = nlohmann::json::parse(reader->ReadLine(), nullptr, false);
  if (result.is_object()) {
    absl::StatusOr<std::string> listed =
        stack.Faultline({"attachments", "--socket=" + stack.agent_socket(), "--output=json"});
    if (!listed.ok()) return listed.status();
    for (const nlohmann::json& one : nlohmann::json::parse(*listed, nullptr, false)) {
      if (one.is_object() && one.value("id", 0) == result["attachment"]) *attachment = one;
    }
  }
  if (const int status = reader->Release(); status != 0 || !result.is_object()) {
    return absl::InternalError(absl::StrCat("the reading process ended with status ", status));
  }
  return result;
}

absl::Status Demo(const DemoOptions& options) {
  absl::StatusOr<Digest> expected = DigestOfFile(options.input);
  if (!expected.ok()) return expected.status();
  absl::StatusOr<TemporaryDirectory> directory = TemporaryDirectory::Create(options.directory);
  if (!directory.ok()) return directory.status();
  absl::StatusOr<LocalStack> stack = LocalStack::Start(directory->path(), Transport::kTcp);
  if (!stack.ok()) return stack.status();
  Step(absl::StrCat("server     pid ", stack->server_pid(), ", ", stack->server_address(),
                    ", RocksDB in ", directory->path(), "/store"));
  Step(absl::StrCat("agent      pid ", stack->agent_pid(), ", handover socket ",
                    stack->agent_socket()));
  Step(absl::StrCat("input      ", options.input, ", ", FormatBytes(expected->bytes)));
  if (auto imported = stack->Faultline({"volume", "import", "demo", options.input});
      !imported.ok()) {
    return imported.status();
  }
  Step("imported   as volume demo");

  nlohmann::json attachment;
  absl::StatusOr<nlohmann::json> result =
      ReadThroughFaults(*stack, options, expected->bytes, &attachment);
  if (!result.ok()) return result.status();
  const std::string digest = (*result)["sha256"];
  const double seconds = (*result)["seconds"];
  printf("\n");
  printf("SHA-256 of the file       %s\n", expected->sha256.c_str());
  printf("SHA-256 through faults    %s\n", digest.c_str());
  printf("faults                    %lu (%lu pages copied, %lu zero pages)\n",
         attachment.value("faults_total", uint64_t{0}),
         attachment.value("copied_pages_total", uint64_t{0}),
         attachment.value("zeroed_pages_total", uint64_t{0}));
  printf("pages                     %lu\n", (*result)["touches"].get<uint64_t>());
  printf("throughput                %.1f MiB/s in %.2f s, hashing included\n",
         static_cast<double>(expected->bytes) / (1 << 20) / seconds, seconds);
  printf("fault latency, reader     p50 %.0f us, p99 %.0f us (%u threads at a time)\n",
         (*result)["p50_us"].get<double>(), (*result)["p99_us"].get<double>(), options.threads);
  printf("fault latency, agent      p50 %.0f us, p99 %.0f us (from reading a fault to its fill)\n",
         attachment.value("fault_p50_us", 0.0), attachment.value("fault_p99_us", 0.0));
  if (digest != expected->sha256) {
    return absl::DataLossError("the digests differ: the reader has not seen the file's bytes");
  }
  printf("\nThe digests are the same.\n");
  return absl::OkStatus();
}

}  // namespace

void RegisterDemoCommand(CLI::App* app, Session* session) {
  auto options = std::make_shared<DemoOptions>();
  CLI::App* demo = app->add_subcommand(
      "demo",
      "Shows the main job: imports a file into a page server of its own, reads it in another "
      "process through page faults, and compares the SHA-256 of both. Leaves nothing behind");
  demo->add_option("--input", options->input, "File to import")
      ->required()
      ->check(CLI::ExistingFile);
  demo->add_option("--threads", options->threads, "Faulting threads of the reading process")
      ->check(CLI::Range(1u, 1024u))
      ->capture_default_str();
  demo->add_option("--memory", options->memory, "Its memory: private or memfd")
      ->check(CLI::IsMember({"private", "memfd"}))
      ->capture_default_str();
  demo->add_option("--directory", options->directory,
                   "Where the store is put for the time of the demo [/var/tmp]");
  demo->callback([=] { session->run = [=] { return Demo(*options); }; });
}

}  // namespace faultline
