/* SPDX-License-Identifier: Apache-2.0
 *
 * The library, as a C program uses it. Without arguments: what needs no agent. With the socket of
 * an agent and the name of a volume: reads all of the volume and prints the sum of its bytes.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/faultline.h"

static void check(int condition, const char* what, const faultline_error* error) {
  if (condition) return;
  fprintf(stderr, "failed: %s (last message: %s)\n", what, error->message);
  exit(1);
}

static void test_arguments(void) {
  faultline_map_options options = FAULTLINE_MAP_OPTIONS_INIT;
  faultline_mapping* mapping = NULL;
  faultline_error error = {""};

  check(faultline_map(NULL, &mapping, &error) == -EINVAL, "no options", &error);
  check(faultline_map(&options, NULL, &error) == -EINVAL, "no place for the mapping", &error);
  check(faultline_map(&options, &mapping, &error) == -EINVAL, "no volume", &error);
  check(strcmp(error.message, "no volume is named") == 0, "message without a volume", &error);
  options.volume = "vm";
  options.length = 5;
  check(faultline_map(&options, &mapping, &error) == -EINVAL, "length 5", &error);
  check(strcmp(error.message, "offset 0 and length 5 must be multiples of 4096") == 0,
        "message of length 5", &error);
  options.length = 0;
  options.memory = 7;
  check(faultline_map(&options, &mapping, &error) == -EINVAL, "memory 7", &error);
  options.memory = FAULTLINE_MAP_PRIVATE;
  options.on_agent_loss = 7;
  check(faultline_map(&options, &mapping, &error) == -EINVAL, "on_agent_loss 7", &error);
  options.on_agent_loss = FAULTLINE_ON_AGENT_LOSS_KILL;
  options.struct_size = sizeof options + 8;
  check(faultline_map(&options, &mapping, &error) == -EINVAL, "struct of a newer header", &error);
  options.struct_size = sizeof options;
  options.socket_path = "/nonexistent/agent.sock";
  check(faultline_map(&options, &mapping, &error) == -ENOENT, "no agent", &error);
  check(strcmp(error.message,
               "cannot connect to the agent at /nonexistent/agent.sock: No such file or directory; "
               "start faultline-agent with --socket=/nonexistent/agent.sock") == 0,
        "message without an agent", &error);
  check(faultline_map(&options, &mapping, NULL) == -ENOENT, "no place for the error", &error);
  check(mapping == NULL, "a mapping in spite of errors", &error);
  check(faultline_unmap(NULL, &error) == -EINVAL, "unmap of nothing", &error);
}

static void test_mapping(const char* socket_path, const char* volume) {
  faultline_map_options options = FAULTLINE_MAP_OPTIONS_INIT;
  faultline_mapping* mapping = NULL;
  faultline_error error = {""};
  const unsigned char* bytes;
  unsigned long long sum = 0;
  uint64_t i;

  options.socket_path = socket_path;
  options.volume = volume;
  check(faultline_map(&options, &mapping, &error) == 0, "map", &error);
  bytes = faultline_address(mapping);
  for (i = 0; i < faultline_length(mapping); ++i) sum += bytes[i];
  check(faultline_attachment(mapping) != 0, "attachment", &error);
  check(faultline_memfd(mapping) == -1, "memfd of private memory", &error);
  check(faultline_unmap(mapping, &error) == 0, "unmap", &error);
  printf("%llu\n", sum);
}

int main(int argc, char** argv) {
  if (argc == 3) {
    test_mapping(argv[1], argv[2]);
  } else {
    test_arguments();
  }
  return 0;
}
