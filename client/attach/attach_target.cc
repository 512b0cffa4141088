// SPDX-License-Identifier: Apache-2.0
//
// A program for tests, that knows nothing of being attached. It maps memory, says "ready ADDRESS",
// and waits in the way that it is told, until something comes on its standard input. Then it says
// "unharmed" or what is wrong with how it waited, and writes all of its memory to its standard
// output, half of the pages by system calls on the memory itself.
//
//   attach_target anon:BYTES|memfd:BYTES|file:PATH:BYTES WAIT [OPTION...]
//   WAIT    ppoll      in ppoll, with a signal mask of its own for as long
//           nanosleep  in one nanosleep after the other
//           futex      in a futex that another thread wakes
//           busy       nowhere: it compares its registers and its red zone, again and again
//           compat     in 32-bit code, for ever
//   OPTION  signals    gets SIGALRM each millisecond
//           sandbox    is killed if it opens a userfaultfd or a file, by a seccomp filter
//           threads    has four further threads, all busy
//           touched    has touched its first page
//           twice      has mapped its memory's file a second time
//           user:ID    runs as this user
//           notrap     ignores SIGTRAP
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <string>
#include <thread>

// Compares registers with what was put there, until `*flag`. Returns 0 if all were right.
extern "C" int WaitBusy(const int* flag);
asm(R"(
  .text
  .globl WaitBusy
  .type WaitBusy, @function
WaitBusy:
  push %rbx
  push %rbp
  push %r12
  push %r13
  push %r14
  push %r15
  mov $0x1111, %eax
  mov $0x2222, %ebx
  mov $0x3333, %ecx
  mov $0x4444, %edx
  mov $0x5555, %esi
  mov $0x6666, %ebp
  mov $0x8888, %r8d
  mov $0x9999, %r9d
  mov $0xaaaa, %r10d
  mov $0xbbbb, %r11d
  mov $0xcccc, %r12d
  mov $0xdddd, %r13d
  mov $0xeeee, %r14d
  mov $0xffff, %r15d
  movq %r15, %xmm7
  movq $0x7777, -8(%rsp)
  movq $0x7778, -128(%rsp)
1:
  cmp $0x1111, %rax
  jne 2f
  cmp $0x2222, %rbx
  jne 2f
  cmp $0x3333, %rcx
  jne 2f
  cmp $0x4444, %rdx
  jne 2f
  cmp $0x5555, %rsi
  jne 2f
  cmp $0x6666, %rbp
  jne 2f
  cmp $0x8888, %r8
  jne 2f
  cmp $0x9999, %r9
  jne 2f
  cmp $0xaaaa, %r10
  jne 2f
  cmp $0xbbbb, %r11
  jne 2f
  cmp $0xcccc, %r12
  jne 2f
  cmp $0xdddd, %r13
  jne 2f
  cmp $0xeeee, %r14
  jne 2f
  movq %xmm7, %r15
  cmp $0xffff, %r15
  jne 2f
  cmpq $0x7777, -8(%rsp)
  jne 2f
  cmpq $0x7778, -128(%rsp)
  jne 2f
  cmpl $0, (%rdi)
  je 1b
  xor %eax, %eax
  jmp 3f
2:
  mov $1, %eax
3:
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbp
  pop %rbx
  ret
  .size WaitBusy, . - WaitBusy
)");

namespace {

constexpr size_t kPageBytes = 4096;

[[noreturn]] void Die(const char* what) {
  perror(what);
  _exit(1);
}

// Set when there is something on the standard input.
std::atomic<int> released = 0;
std::atomic<int> signals = 0;

const int* ReleasedWord() { return reinterpret_cast<const int*>(&released); }

void AwaitInput() {
  pollfd input{STDIN_FILENO, POLLIN, 0};
  while (poll(&input, 1, -1) < 0 && errno == EINTR) {
  }
}

const char* WaitInPpoll() {
  sigset_t none, blocked, now;
  sigemptyset(&none);
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGUSR1);
  sigprocmask(SIG_SETMASK, &blocked, nullptr);
  pollfd input{STDIN_FILENO, POLLIN, 0};
  int ready;
  do {
    ready = ppoll(&input, 1, nullptr, &none);
  } while (ready < 0 && errno == EINTR && signals > 0);
  if (ready != 1 || input.revents != POLLIN) return "ppoll returned something else";
  sigprocmask(SIG_SETMASK, nullptr, &now);
  return memcmp(&now, &blocked, 8) == 0 ? "unharmed" : "the signal mask is another one";
}

int64_t NowNs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1'000'000'000 + now.tv_nsec;
}

const char* WaitInNanosleep() {
  while (released == 0) {
    timespec pause{0, 50'000'000}, left{};
    const int64_t begin = NowNs();
    if (nanosleep(&pause, &left) != 0) {
      if (errno == EINTR && signals > 0) continue;
      return "nanosleep returned an error";
    }
    if (NowNs() - begin < pause.tv_nsec) return "nanosleep was too short";
  }
  return "unharmed";
}

const char* WaitInFutex() {
  while (released == 0) {
    const long result = syscall(SYS_futex, &released, FUTEX_WAIT_PRIVATE, 0, nullptr, nullptr, 0);
    if (result != 0 && errno != EAGAIN && !(errno == EINTR && signals > 0)) {
      return "futex returned something else";
    }
  }
  return "unharmed";
}

void WaitInCompat() {
  void* code = mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE | PROT_EXEC,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
  if (code == MAP_FAILED) Die("mmap");
  memcpy(code, "\xeb\xfe", 2);            // jmp .
  constexpr uint64_t kCompatCode = 0x23;  // __USER32_CS
  asm volatile("push %0\n push %1\n lretq" : : "r"(kCompatCode), "r"(code));
}

const char* Wait(const std::string& how) {
  if (how == "ppoll") return WaitInPpoll();
  if (how == "nanosleep") return WaitInNanosleep();
  if (how == "futex") return WaitInFutex();
  if (how == "busy") return WaitBusy(ReleasedWord()) == 0 ? "unharmed" : "a register has changed";
  if (how == "compat") WaitInCompat();
  return "there is no such way to wait";
}

char* Map(const std::string& kind, size_t* size) {
  const size_t colon = kind.rfind(':');
  *size = strtoul(kind.c_str() + colon + 1, nullptr, 10);
  int fd = -1, flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  if (kind[0] != 'a') {
    fd = kind[0] == 'm' ? memfd_create("attach-target", MFD_CLOEXEC)
                        : open(kind.substr(5, colon - 5).c_str(), O_RDWR | O_CREAT, 0600);
    if (fd < 0 || ftruncate(fd, static_cast<off_t>(*size)) != 0) Die("file");
    flags = MAP_SHARED;
  }
  // With room around it, so that no other mapping becomes one with it.
  void* room = mmap(nullptr, *size + 2 * kPageBytes, PROT_NONE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (room == MAP_FAILED) Die("mmap");
  void* memory = mmap(static_cast<char*>(room) + kPageBytes, *size, PROT_READ | PROT_WRITE,
                      flags | MAP_FIXED, fd, 0);
  if (memory == MAP_FAILED) Die("mmap");
  if (kind[0] == 'f') close(fd);
  return static_cast<char*>(memory);
}

void EnterSandbox() {
  sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_userfaultfd, 1, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program{sizeof filter / sizeof filter[0], filter};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
      prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
    Die("seccomp");
  }
}

void Apply(const std::string& option, char* memory, size_t size) {
  if (option == "signals") {
    struct sigaction action {};
    action.sa_handler = [](int) { ++signals; };
    action.sa_flags = SA_RESTART;
    sigaction(SIGALRM, &action, nullptr);
    const itimerval timer{{0, 1000}, {0, 1000}};
    setitimer(ITIMER_REAL, &timer, nullptr);
  } else if (option == "sandbox") {
    EnterSandbox();
  } else if (option == "threads") {
    for (int i = 0; i < 4; ++i) {
      std::thread([] {
        if (WaitBusy(ReleasedWord()) != 0) Die("a thread's register has changed");
      }).detach();
    }
  } else if (option == "touched") {
    memory[0] = 1;
  } else if (option == "twice") {
    // An old size of 0 copies a shared mapping.
    if (mremap(memory, 0, size, MREMAP_MAYMOVE) == MAP_FAILED) Die("mremap");
  } else if (option == "notrap") {
    signal(SIGTRAP, SIG_IGN);
  } else if (option.compare(0, 5, "user:") == 0) {
    const auto user = static_cast<uid_t>(atoi(option.c_str() + 5));
    if (setgid(user) != 0 || setuid(user) != 0) Die("setuid");
    prctl(PR_SET_DUMPABLE, 1);
  }
}

bool TrapIsIgnored() {
  struct sigaction action;
  sigaction(SIGTRAP, nullptr, &action);
  return action.sa_handler == SIG_IGN;
}

void WriteAll(const void* bytes, size_t size) {
  for (size_t done = 0; done < size;) {
    const ssize_t n = write(STDOUT_FILENO, static_cast<const char*>(bytes) + done, size - done);
    if (n < 0) Die("write");
    done += static_cast<size_t>(n);
  }
}

void WriteMemory(const char* memory, size_t size) {
  static char page[kPageBytes];
  for (size_t at = 0; at < size; at += kPageBytes) {
    const char* from = memory + at;
    if (at / kPageBytes % 2 == 0) {
      memcpy(page, memory + at, kPageBytes);
      from = page;
    }
    WriteAll(from, kPageBytes);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return 64;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  size_t size;
  char* memory = Map(argv[1], &size);
  for (int i = 3; i < argc; ++i) Apply(argv[i], memory, size);
  const bool trap_was_ignored = TrapIsIgnored();
  std::thread([] {
    AwaitInput();
    released = 1;
    syscall(SYS_futex, &released, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
  }).detach();
  char ready[64];
  snprintf(ready, sizeof ready, "ready %lx\n", reinterpret_cast<unsigned long>(memory));
  WriteAll(ready, strlen(ready));
  const char* outcome = Wait(argv[2]);
  if (trap_was_ignored != TrapIsIgnored()) outcome = "the disposition of SIGTRAP has changed";
  WriteAll(outcome, strlen(outcome));
  WriteAll("\n", 1);
  signal(SIGALRM, SIG_IGN);
  WriteMemory(memory, size);
  _exit(0);
}
