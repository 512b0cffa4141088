/* SPDX-License-Identifier: Apache-2.0
 *
 * Maps a volume and compares every byte of it with a file.
 *
 *   consumer SOCKET VOLUME FILE
 */
#include <err.h>
#include <faultline.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char** argv) {
  faultline_map_options options = FAULTLINE_MAP_OPTIONS_INIT;
  faultline_error error;
  faultline_mapping* mapping;
  static char expected[1 << 16];
  size_t at = 0, n;
  FILE* file;

  if (argc != 4) errx(2, "usage: consumer SOCKET VOLUME FILE");
  options.socket_path = argv[1];
  options.volume = argv[2];
  if (faultline_map(&options, &mapping, &error) < 0) errx(1, "%s", error.message);
  file = fopen(argv[3], "rb");
  if (file == NULL) err(1, "%s", argv[3]);
  while ((n = fread(expected, 1, sizeof expected, file)) > 0) {
    if (memcmp((char*)faultline_address(mapping) + at, expected, n) != 0) {
      errx(1, "a byte from %zu on is wrong", at);
    }
    at += n;
  }
  fclose(file);
  if (at != faultline_length(mapping)) errx(1, "%zu bytes are there", faultline_length(mapping));
  if (faultline_unmap(mapping, &error) < 0) errx(1, "%s", error.message);
  printf("%zu bytes are right\n", at);
  return 0;
}
