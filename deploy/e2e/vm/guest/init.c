/* SPDX-License-Identifier: Apache-2.0
 *
 * The only program of the test's virtual machine, as its /init: owns memory, and in each pass
 * checks every word of it and rewrites every page, in an order that no read-ahead guesses. What it
 * finds goes to the console:
 *
 *   ready MIB                     all of the memory is written, the first pass begins
 *   tick N ms T pass P bad B      every few milliseconds; T since the machine's start
 *   pass P bad B                  a pass is done
 *   BAD page G pass P word W      a wrong word (of each page the first one)
 *
 * The kernel's command line, of which init gets what the kernel does not know as its environment:
 *
 *   memory_mib=64   how much memory
 *   tick_ms=10      how often a tick is printed
 *   rest_us=0       how long to sleep after every 64 pages, to leave the host some time
 *   spoil_pass=0    before this pass a word becomes wrong, which is to be found; 0: none does
 *   scratch_mib=0   memory that each pass allocates, checks and frees, beside the other: so that a
 *                   balloon, and reports of free pages, take memory that was used and will be
 *
 * Modules of the kernel in /modules are loaded first, in the order of their names.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { kPageWords = 4096 / sizeof(uint64_t), kPagesPerRest = 64 };

/* Odd, so that all multiples below a power of two differ. */
static const uint64_t kMix = 0x9e3779b97f4a7c15;

/* So far from the pages of the memory that no word of the one is one of the other. */
static const uint64_t kFirstScratchPage = (uint64_t)1 << 32;

static uint64_t* memory;
static uint64_t pages;
static atomic_ulong pass;
static atomic_ulong bad;

/* A line in one write, so that those of both threads do not mix. */
__attribute__((format(printf, 1, 2))) static void Say(const char* format, ...) {
  char line[128];
  va_list arguments;
  va_start(arguments, format);
  const int size = vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  if (write(STDOUT_FILENO, line, (size_t)size) != size) _exit(1);
}

static uint64_t Parameter(const char* name, uint64_t otherwise) {
  const char* text = getenv(name);
  return text == NULL ? otherwise : strtoull(text, NULL, 10);
}

static void SleepMicroseconds(uint64_t us) {
  const struct timespec time = {(time_t)(us / 1000000), (long)(us % 1000000 * 1000)};
  nanosleep(&time, NULL);
}

static uint64_t Word(uint64_t page, uint64_t word, uint64_t generation) {
  return (page * kPageWords + word + 1) * kMix ^ generation;
}

static void WritePage(uint64_t* at, uint64_t page, uint64_t generation) {
  for (uint64_t i = 0; i < kPageWords; ++i) at[i] = Word(page, i, generation);
}

static void CheckPage(const uint64_t* at, uint64_t page, uint64_t generation) {
  for (uint64_t i = 0; i < kPageWords; ++i) {
    if (at[i] == Word(page, i, generation)) continue;
    atomic_fetch_add(&bad, 1);
    Say("BAD page %lu pass %lu word %lu\n", page, generation, i);
    return;
  }
}

static void* Tick(void* period_us) {
  for (uint64_t n = 0;; ++n) {
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    Say("tick %lu ms %lu pass %lu bad %lu\n", n,
        (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000, atomic_load(&pass),
        atomic_load(&bad));
    SleepMicroseconds(*(const uint64_t*)period_us);
  }
  return NULL;
}

/* Every page once: a walk of odd stride through the next power of two leaves out what is beyond. */
static void Pass(uint64_t generation, uint64_t rest_us) {
  uint64_t slots = 1;
  while (slots < pages) slots *= 2;
  const uint64_t stride = (kMix * (2 * generation + 1)) | 1;
  uint64_t done = 0;
  for (uint64_t i = 0; i < slots; ++i) {
    const uint64_t page = (i * stride) & (slots - 1);
    if (page >= pages) continue;
    CheckPage(memory + page * kPageWords, page, generation);
    WritePage(memory + page * kPageWords, page, generation + 1);
    if (rest_us != 0 && ++done % kPagesPerRest == 0) SleepMicroseconds(rest_us);
  }
}

/* Memory as it comes and goes: zeros at first, then what was written, then given back. */
static void UseScratch(uint64_t scratch_mib, uint64_t generation) {
  const uint64_t count = scratch_mib << 8;
  if (count == 0) return;
  uint64_t* const scratch =
      mmap(NULL, scratch_mib << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (scratch == MAP_FAILED) return;
  for (uint64_t page = 0; page < count; ++page) {
    for (uint64_t i = 0; i < kPageWords; ++i) {
      if (scratch[page * kPageWords + i] == 0) continue;
      atomic_fetch_add(&bad, 1);
      Say("BAD page %lu pass %lu word %lu\n", kFirstScratchPage + page, generation, i);
      break;
    }
    WritePage(scratch + page * kPageWords, kFirstScratchPage + page, generation);
  }
  for (uint64_t page = 0; page < count; ++page) {
    CheckPage(scratch + page * kPageWords, kFirstScratchPage + page, generation);
  }
  munmap(scratch, scratch_mib << 20);
}

static void LoadModules(void) {
  struct dirent** names = NULL;
  const int count = scandir("/modules", &names, NULL, alphasort);
  for (int i = 0; i < count; ++i) {
    if (names[i]->d_name[0] == '.') continue;
    char path[300];
    snprintf(path, sizeof path, "/modules/%s", names[i]->d_name);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || syscall(SYS_finit_module, fd, "", 0) != 0) Say("cannot load %s\n", path);
    close(fd);
  }
}

int main(void) {
  LoadModules();
  const uint64_t mib = Parameter("memory_mib", 64);
  const uint64_t rest_us = Parameter("rest_us", 0);
  const uint64_t spoil_pass = Parameter("spoil_pass", 0);
  const uint64_t scratch_mib = Parameter("scratch_mib", 0);
  uint64_t tick_us = Parameter("tick_ms", 10) * 1000;
  pages = mib << 8;
  memory = mmap(NULL, mib << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    Say("cannot have %lu MiB; give the machine more\n", mib);
    reboot(RB_POWER_OFF);
  }
  for (uint64_t page = 0; page < pages; ++page) {
    WritePage(memory + page * kPageWords, page, 0);
  }
  Say("ready %lu\n", mib);
  pthread_t ticker;
  if (pthread_create(&ticker, NULL, Tick, &tick_us) != 0) Say("no ticker\n");
  for (uint64_t generation = 0;; ++generation) {
    if (spoil_pass != 0 && generation == spoil_pass) memory[pages / 2 * kPageWords + 7] ^= 1;
    Pass(generation, rest_us);
    UseScratch(scratch_mib, generation);
    atomic_store(&pass, generation + 1);
    Say("pass %lu bad %lu\n", generation + 1, atomic_load(&bad));
  }
}
