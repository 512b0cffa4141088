/* SPDX-License-Identifier: Apache-2.0
 *
 * A program for tests, that knows nothing of being paged. Maps memory, does what it is told to it,
 * and writes all of it to its standard output.
 *
 *   preload_target anonymous|memfd|PATH BYTES [ACTION...]
 *   ACTION  others     makes other mappings first, which must be its own
 *           touched    has written to the first page of the file
 *           populate   has all of it mapped at once
 *           over       maps it over address space that it has reserved
 *           again      makes a second mapping, and says what came of it in place of the memory
 *           env        runs env(1) in place of writing the memory
 *           punch      discards page 9 and the second half of page 8 as QEMU does, and says
 *                      MADV_DONTNEED of pages 30 to 39
 *           storm      discards all pages but each tenth as QEMU does, in four threads, and looks
 *           reuse      puts memory of its own over page 5, writes to it, and discards it
 *
 * Exit status 3: mmap failed, with its errno on the standard error; 4: something was wrong.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE ((size_t)4096)
#define THREADS 4

static size_t size;
static int fd = -1;
static unsigned char* memory;

static void require(int condition, const char* what) {
  if (condition) return;
  fprintf(stderr, "wrong: %s (errno %d)\n", what, errno);
  exit(4);
}

static int has(int argc, char** argv, const char* action) {
  int i;
  for (i = 3; i < argc; ++i) {
    if (strcmp(argv[i], action) == 0) return 1;
  }
  return 0;
}

static int is_filled_with(const unsigned char* bytes, size_t count, unsigned char value) {
  size_t i;
  for (i = 0; i < count; ++i) {
    if (bytes[i] != value) return 0;
  }
  return 1;
}

static void make_other_mappings(void) {
  int other = memfd_create("other", MFD_CLOEXEC);
  unsigned char* anonymous = mmap(NULL, 2 * size, PROT_READ | PROT_WRITE,
                                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  unsigned char* shared;
  require(anonymous != MAP_FAILED && ftruncate(other, (off_t)(2 * size)) == 0, "other mappings");
  shared = mmap(NULL, 2 * size, PROT_READ | PROT_WRITE, MAP_SHARED, other, 0);
  require(shared != MAP_FAILED, "another memfd");
  memset(shared, 7, 2 * size);
  require(madvise(shared, 2 * size, MADV_DONTNEED) == 0, "MADV_DONTNEED of another memfd");
  require(is_filled_with(shared, 2 * size, 7), "MADV_DONTNEED keeps shared memory");
  require(fallocate(other, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)size) == 0,
          "punching another memfd");
  require(is_filled_with(shared, size, 0), "the hole of another memfd");
  require(is_filled_with(anonymous, 2 * size, 0), "another anonymous mapping");
}

static void* map(int argc, char** argv) {
  int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
  void* wish = NULL;
  if (has(argc, argv, "populate")) flags |= MAP_POPULATE;
  if (has(argc, argv, "over")) {
    wish = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    require(wish != MAP_FAILED, "reserving");
    flags |= MAP_FIXED;
  }
  return mmap(wish, size, PROT_READ | PROT_WRITE, flags, fd, 0);
}

static void discard(size_t offset, size_t length) {
  require(
      fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)length) == 0,
      "fallocate");
  require(madvise(memory + offset, length, MADV_DONTNEED) == 0, "MADV_DONTNEED");
}

static void punch(void) {
  require(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(8 * PAGE + PAGE / 2),
                    (off_t)(PAGE + PAGE / 2)) == 0,
          "fallocate");
  require(madvise(memory + 9 * PAGE, PAGE, MADV_DONTNEED) == 0, "MADV_DONTNEED");
  /* One that was touched, and nine that were not. */
  (void)*(volatile unsigned char*)(memory + 30 * PAGE);
  require(madvise(memory + 30 * PAGE, 10 * PAGE, MADV_DONTNEED) == 0, "MADV_DONTNEED alone");
  require(fallocate(fd, 0, 0, (off_t)PAGE) == -1 && errno == EOPNOTSUPP, "allocating its file");
  require(mremap(memory, size, size / 2, 0) == MAP_FAILED && errno == EOPNOTSUPP, "mremap");
}

static void* storm_thread(void* number) {
  size_t page;
  for (page = (size_t)number; page < size / PAGE; page += THREADS) {
    unsigned char* bytes = memory + page * PAGE;
    if (page % 10 == 0) continue;
    discard(page * PAGE, PAGE);
    require(is_filled_with(bytes, PAGE, 0), "a discarded page is zero");
    memset(bytes, (int)(page % 251), PAGE);
    require(madvise(bytes, PAGE, MADV_DONTNEED) == 0, "MADV_DONTNEED alone");
    require(is_filled_with(bytes, PAGE, (unsigned char)(page % 251)), "what was written stays");
    discard(page * PAGE, PAGE);
  }
  return NULL;
}

static void storm(void) {
  pthread_t threads[THREADS];
  size_t i;
  for (i = 0; i < THREADS; ++i) {
    require(pthread_create(&threads[i], NULL, storm_thread, (void*)i) == 0, "a thread");
  }
  for (i = 0; i < THREADS; ++i) pthread_join(threads[i], NULL);
}

static void reuse(void) {
  unsigned char* page = memory + 5 * PAGE;
  require(mmap(page, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
               0) == page,
          "mapping over a page");
  memset(page, 7, PAGE);
  require(madvise(page, PAGE, MADV_DONTNEED) == 0, "MADV_DONTNEED of private memory");
  require(is_filled_with(page, PAGE, 0), "MADV_DONTNEED discards private memory");
}

int main(int argc, char** argv) {
  if (argc < 3) return 64;
  size = strtoul(argv[2], NULL, 10);
  if (has(argc, argv, "others")) make_other_mappings();
  if (strcmp(argv[1], "anonymous") != 0) {
    fd = strcmp(argv[1], "memfd") == 0 ? memfd_create("target", MFD_CLOEXEC)
                                       : open(argv[1], O_RDWR | O_CREAT, 0600);
    require(fd >= 0 && ftruncate(fd, (off_t)size) == 0, "the file");
    if (has(argc, argv, "touched")) require(pwrite(fd, "x", 1, 0) == 1, "writing to the file");
  }
  memory = map(argc, argv);
  if (memory == MAP_FAILED) {
    fprintf(stderr, "mmap: errno %d\n", errno);
    return 3;
  }
  if (has(argc, argv, "again")) {
    require(map(argc, argv) == MAP_FAILED, "a second mapping");
    printf("errno %d", errno);
    return 0;
  }
  if (has(argc, argv, "env")) {
    execlp("env", "env", (char*)NULL);
    return 4;
  }
  if (has(argc, argv, "punch")) punch();
  if (has(argc, argv, "storm")) storm();
  if (has(argc, argv, "reuse")) reuse();
  return fwrite(memory, 1, size, stdout) == size && fflush(stdout) == 0 ? 0 : 4;
}
