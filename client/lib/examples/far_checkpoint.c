/* SPDX-License-Identifier: Apache-2.0
 *
 * Fills far memory that is four times as large as what may be here, makes a checkpoint of it, and
 * goes on writing, which the checkpoint does not see.
 *
 *   cc -o far_checkpoint far_checkpoint.c -lfaultline
 *   ./far_checkpoint /run/faultline/agent.sock numbers numbers-at-noon
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "client/lib/faultline.h"

static void check(int result, const char* what, const faultline_error* error) {
  if (result == 0) return;
  fprintf(stderr, "%s: %s\n", what, error->message);
  exit(1);
}

int main(int argc, char** argv) {
  const uint64_t size = UINT64_C(32) << 20;
  faultline_far_options options = FAULTLINE_FAR_OPTIONS_INIT;
  faultline_error error = {""};
  faultline_far* far = NULL;
  uint64_t* numbers;
  uint64_t sum = 0;
  uint64_t i;

  if (argc != 4) {
    fprintf(stderr, "usage: far_checkpoint SOCKET VOLUME SNAPSHOT\n");
    return 2;
  }
  options.socket_path = argv[1];
  options.volume = argv[2];
  options.size = size;
  options.local_memory = size / 4;
  check(faultline_far_create(&options, &far, &error), "create", &error);

  numbers = faultline_far_address(far);
  for (i = 0; i < size / sizeof *numbers; ++i) {
    numbers[i] = i * i;
    sum += i * i;
  }
  check(faultline_far_checkpoint(far, argv[3], &error), "checkpoint", &error);
  for (i = 0; i < size / sizeof *numbers; i += 512) numbers[i] = 0;

  check(faultline_far_close(far, &error), "close", &error);
  printf("%" PRIu64 "\n", sum);
  return 0;
}
