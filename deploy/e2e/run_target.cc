// SPDX-License-Identifier: Apache-2.0
//
// A program for `faultline run` that does with its memory what few programs do, while the rest of
// that memory is written to all the time, so that pages leave. It knows what each of its bytes must
// be.
//
//   run_target lock MIB LOCKED_MIB     mlock of a part, later munlock
//   run_target lock-future MIB         mlockall(MCL_CURRENT | MCL_FUTURE), before memory is mapped
//   run_target map-locked MIB          mmap(MAP_LOCKED)
//   run_target forks MIB CHILDREN      so many children at once, each of which writes to all of it
//   run_target direct-io MIB FILE      reads and writes with O_DIRECT, by several threads
//   run_target io-uring MIB FILE       the same by io_uring, O_DIRECT too
//   run_target io-uring-fixed MIB FILE with registered buffers, which stay pinned: a quarter of it
//
// It says "all bytes right", or what is wrong, with exit status 1; 77, and why, where the kernel
// does not do it.
#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr size_t kPageBytes = 4096, kMiB = size_t{1} << 20;
constexpr size_t kBlockBytes = 4 * kPageBytes;  // of I/O
constexpr int kLaps = 4;
constexpr auto kIoTime = std::chrono::seconds(3);
using Clock = std::chrono::steady_clock;

[[noreturn, gnu::format(printf, 2, 3)]] void End(int status, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vfprintf(stderr, format, arguments);
  va_end(arguments);
  fputc('\n', stderr);
  _exit(status);
}
void Must(bool done, const char* what) {
  if (!done) End(1, "%s: %s", what, strerror(errno));
}

uint64_t WordOf(uint64_t place, uint64_t generation, uint64_t word) {
  return (place * 1'000'003 + generation) * 0x9e3779b97f4a7c15u + word;
}
// `bytes` of what belongs to `place`.
void Fill(std::byte* at, size_t bytes, uint64_t place, uint64_t generation) {
  for (size_t i = 0; i < bytes / 8; ++i) {
    reinterpret_cast<volatile uint64_t*>(at)[i] = WordOf(place, generation, i);
  }
}
void Check(const std::byte* at, size_t bytes, uint64_t place, uint64_t generation,
           const char* when) {
  for (size_t i = 0; i < bytes / 8; ++i) {
    const uint64_t found = reinterpret_cast<const volatile uint64_t*>(at)[i];
    if (found == WordOf(place, generation, i)) continue;
    End(1, "%s: place %lu, word %lu: found %lx, not %lx of generation %lu", when, place, i, found,
        WordOf(place, generation, i), generation);
  }
}

struct Memory {
  std::byte* at;
  size_t bytes;

  static Memory Map(size_t bytes, int flags = 0) {
    void* const at =
        mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
    Must(at != MAP_FAILED, "mmap");
    return {static_cast<std::byte*>(at), bytes};
  }
  void FillAll(uint64_t generation) const {
    for (size_t i = 0; i < bytes; i += kPageBytes) Fill(at + i, kPageBytes, i, generation);
  }
  void CheckAll(uint64_t generation, const char* when) const {
    for (size_t i = 0; i < bytes; i += kPageBytes) Check(at + i, kPageBytes, i, generation, when);
  }
  // Checks and fills anew, page by page.
  void Laps(uint64_t generation, int laps, const char* when) const {
    for (int lap = 0; lap < laps; ++lap, ++generation) {
      for (size_t i = 0; i < bytes; i += kPageBytes) {
        Check(at + i, kPageBytes, i, generation, when);
        Fill(at + i, kPageBytes, i, generation + 1);
      }
    }
  }
};

// Makes other memory leave, by writing to its own, and looks at that.
class Pressure {
 public:
  explicit Pressure(size_t bytes) : memory_(Memory::Map(bytes)) {
    memory_.FillAll(0);
    thread_ = std::thread([this] {
      for (uint64_t lap = 0; !stop_; ++lap) memory_.Laps(lap, 1, "beside it");
    });
  }
  ~Pressure() {
    stop_ = true;
    thread_.join();
  }

 private:
  const Memory memory_;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

void Lock(size_t bytes, size_t locked_bytes) {
  const Memory memory = Memory::Map(bytes);
  memory.FillAll(0);
  Must(mlock(memory.at, locked_bytes) == 0, "mlock");
  // Long enough that the agent meets what is locked, however busy the machine is.
  uint64_t lap = 0;
  for (const auto end = Clock::now() + kIoTime; lap < kLaps || Clock::now() < end; ++lap) {
    memory.Laps(lap, 1, "while a part is locked");
  }
  std::vector<unsigned char> here(locked_bytes / kPageBytes);
  Must(mincore(memory.at, locked_bytes, here.data()) == 0, "mincore");
  for (size_t i = 0; i < here.size(); ++i) {
    if ((here[i] & 1) == 0) End(1, "page %zu is locked and not here", i);
  }
  Must(munlock(memory.at, locked_bytes) == 0, "munlock");
  memory.Laps(lap, kLaps, "when nothing is locked any more");
}

void LockFuture(size_t bytes) {
  Must(mlockall(MCL_CURRENT | MCL_FUTURE) == 0, "mlockall");
  const Memory memory = Memory::Map(bytes);
  memory.FillAll(0);
  memory.Laps(0, kLaps, "while all is locked");
  Must(munlockall() == 0, "munlockall");
  memory.Laps(kLaps, kLaps, "when nothing is locked any more");
}

void MapLocked(size_t bytes) {
  const Memory ordinary = Memory::Map(bytes);
  ordinary.FillAll(0);
  const Memory memory = Memory::Map(bytes, MAP_LOCKED);
  memory.FillAll(0);
  for (int lap = 0; lap < kLaps; ++lap) {
    memory.Laps(lap, 1, "locked memory");
    ordinary.Laps(lap, 1, "beside locked memory");
  }
}

void Forks(size_t bytes, int children) {
  const Memory memory = Memory::Map(bytes);
  memory.FillAll(0);
  std::vector<pid_t> pids;
  for (int child = 0; child < children; ++child) {
    const pid_t pid = fork();
    Must(pid >= 0, "fork");
    if (pid == 0) {
      memory.CheckAll(child, "what a child was given");
      memory.FillAll(1'000 + child);
      memory.CheckAll(1'000 + child, "what a child has written");
      _exit(0);
    }
    pids.push_back(pid);
    memory.Laps(child, 1, "beside children");
  }
  for (const pid_t pid : pids) {
    int status = -1;
    Must(waitpid(pid, &status, 0) == pid, "waitpid");
    if (status != 0) End(1, "child %d ended with %x", pid, status);
  }
  memory.CheckAll(children, "when all children have ended");
}

// Blocks of a file, written from slots of memory and read into others. What is written is known by
// block and generation.
class BlockFile {
 public:
  BlockFile(const char* path, size_t blocks) : generations_(blocks) {
    fd_ = open(path, O_RDWR | O_CREAT | O_DIRECT, 0600);
    if (fd_ < 0 && errno == EINVAL) End(77, "%s: its file system has no O_DIRECT", path);
    Must(fd_ >= 0, path);
    Must(ftruncate(fd_, static_cast<off_t>(blocks * kBlockBytes)) == 0, "ftruncate");
  }
  int fd() const { return fd_; }
  uint64_t& generation(size_t block) { return generations_[block]; }

 private:
  int fd_;
  std::vector<uint64_t> generations_;
};

void DirectIo(size_t bytes, const char* path) {
  constexpr size_t kThreads = 4;
  const size_t slots = bytes / kBlockBytes, of_thread = slots / kThreads;
  const Memory memory = Memory::Map(bytes);
  BlockFile file(path, slots);
  const Pressure pressure(bytes);
  std::vector<std::thread> threads;
  std::atomic<uint64_t> done = 0;
  for (size_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      std::minstd_rand random(static_cast<unsigned>(t) + 1);
      for (const auto end = Clock::now() + kIoTime; Clock::now() < end; ++done) {
        const size_t block = t * of_thread + random() % of_thread;
        std::byte* const from = memory.at + (t * of_thread + random() % of_thread) * kBlockBytes;
        std::byte* const to = memory.at + (t * of_thread + random() % of_thread) * kBlockBytes;
        const auto offset = static_cast<off_t>(block * kBlockBytes);
        const uint64_t generation = ++file.generation(block);
        Fill(from, kBlockBytes, block, generation);
        Must(pwrite(file.fd(), from, kBlockBytes, offset) == kBlockBytes, "pwrite");
        Must(pread(file.fd(), to, kBlockBytes, offset) == kBlockBytes, "pread");
        Check(to, kBlockBytes, block, generation, "what was read");
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  printf("%lu blocks written and read\n", done.load());
}

// By the system calls alone.
class Ring {
 public:
  explicit Ring(unsigned entries) {
    io_uring_params params = {};
    fd_ = static_cast<int>(syscall(SYS_io_uring_setup, entries, &params));
    if (fd_ < 0) End(77, "no io_uring: %s", strerror(errno));
    submissions_ = MapRing(params.sq_off.array + params.sq_entries * sizeof(unsigned), 0);
    completions_ =
        MapRing(params.cq_off.cqes + params.cq_entries * sizeof(io_uring_cqe), IORING_OFF_CQ_RING);
    entries_ = reinterpret_cast<io_uring_sqe*>(
        MapRing(params.sq_entries * sizeof(io_uring_sqe), IORING_OFF_SQES));
    params_ = params;
  }

  void Register(std::byte* at, size_t bytes) {
    const iovec buffer{at, bytes};
    Must(syscall(SYS_io_uring_register, fd_, IORING_REGISTER_BUFFERS, &buffer, 1) == 0,
         "IORING_REGISTER_BUFFERS");
  }

  // Adds one, to be begun by Finish().
  void Add(int operation, int file, size_t block, std::byte* at) {
    auto* const array = reinterpret_cast<unsigned*>(submissions_ + params_.sq_off.array);
    auto& tail = *reinterpret_cast<unsigned*>(submissions_ + params_.sq_off.tail);
    const unsigned index = tail & (params_.sq_entries - 1);
    io_uring_sqe& entry = entries_[index];
    entry = {};
    entry.opcode = static_cast<uint8_t>(operation);
    entry.fd = file;
    entry.off = block * kBlockBytes;
    entry.addr = reinterpret_cast<uint64_t>(at);
    entry.len = kBlockBytes;
    array[index] = index;
    std::atomic_ref(tail).store(tail + 1, std::memory_order_release);
    ++added_;
  }
  // Begins all and waits for their ends.
  void Finish() {
    Must(syscall(SYS_io_uring_enter, fd_, added_, added_, IORING_ENTER_GETEVENTS, nullptr, 0) ==
             static_cast<long>(added_),
         "io_uring_enter");
    auto& head = *reinterpret_cast<unsigned*>(completions_ + params_.cq_off.head);
    auto& tail = *reinterpret_cast<unsigned*>(completions_ + params_.cq_off.tail);
    const auto* const all =
        reinterpret_cast<const io_uring_cqe*>(completions_ + params_.cq_off.cqes);
    for (; added_ > 0; --added_) {
      if (std::atomic_ref(tail).load(std::memory_order_acquire) == head) {
        End(1, "io_uring_enter has not waited for all");
      }
      const int result = all[head & (params_.cq_entries - 1)].res;
      if (result != int{kBlockBytes}) End(1, "io_uring: an operation has ended with %d", result);
      std::atomic_ref(head).store(head + 1, std::memory_order_release);
    }
  }

 private:
  std::byte* MapRing(size_t bytes, uint64_t offset) const {
    void* const at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd_,
                          static_cast<off_t>(offset));
    Must(at != MAP_FAILED, "mmap of a ring");
    return static_cast<std::byte*>(at);
  }

  int fd_ = -1;
  io_uring_params params_ = {};
  std::byte* submissions_ = nullptr;
  std::byte* completions_ = nullptr;
  io_uring_sqe* entries_ = nullptr;
  unsigned added_ = 0;
};

void IoUring(size_t bytes, const char* path, bool fixed) {
  constexpr size_t kAtATime = 16;
  const Memory memory = Memory::Map(fixed ? bytes / 4 : bytes);
  const size_t slots = memory.bytes / kBlockBytes;
  BlockFile file(path, slots);
  Ring ring(kAtATime);
  if (fixed) ring.Register(memory.at, memory.bytes);
  const Pressure pressure(bytes);
  std::minstd_rand random(1);
  uint64_t done = 0;
  for (const auto end = Clock::now() + kIoTime; Clock::now() < end; done += kAtATime) {
    const size_t block = random() % slots, from = random() % slots, to = random() % slots;
    const auto slot = [&](size_t first, size_t i) {
      return memory.at + (first + i) % slots * kBlockBytes;
    };
    for (size_t i = 0; i < kAtATime; ++i) {
      const size_t b = (block + i) % slots;
      Fill(slot(from, i), kBlockBytes, b, ++file.generation(b));
      ring.Add(fixed ? IORING_OP_WRITE_FIXED : IORING_OP_WRITE, file.fd(), b, slot(from, i));
    }
    ring.Finish();
    for (size_t i = 0; i < kAtATime; ++i) {
      ring.Add(fixed ? IORING_OP_READ_FIXED : IORING_OP_READ, file.fd(), (block + i) % slots,
               slot(to, i));
    }
    ring.Finish();
    for (size_t i = 0; i < kAtATime; ++i) {
      const size_t b = (block + i) % slots;
      Check(slot(to, i), kBlockBytes, b, file.generation(b), "what was read");
    }
  }
  printf("%lu blocks written and read\n", done);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string what = argc > 2 ? argv[1] : "";
  const size_t bytes = argc > 2 ? strtoull(argv[2], nullptr, 10) * kMiB : 0;
  if (what == "lock" && argc == 4) {
    Lock(bytes, strtoull(argv[3], nullptr, 10) * kMiB);
  } else if (what == "lock-future" && argc == 3) {
    LockFuture(bytes);
  } else if (what == "map-locked" && argc == 3) {
    MapLocked(bytes);
  } else if (what == "forks" && argc == 4) {
    Forks(bytes, atoi(argv[3]));
  } else if (what == "direct-io" && argc == 4) {
    DirectIo(bytes, argv[3]);
  } else if ((what == "io-uring" || what == "io-uring-fixed") && argc == 4) {
    IoUring(bytes, argv[3], what == "io-uring-fixed");
  } else {
    End(64, "usage: run_target WHAT MIB [...]; its source says what there is");
  }
  puts("all bytes right");
  return 0;
}
