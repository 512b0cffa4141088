// SPDX-License-Identifier: Apache-2.0
//
// A program for tests, whose memory is far: it hands its userfaultfd and the commands of its
// eviction helper over on descriptor 3, a SOCK_SEQPACKET socket, and then does what it is told
// there:
//
//   far_target PAGES [huge|fresh|memfd]
//                           huge: the memory is filled, and of huge pages, before it is far
//                           fresh: UFFDIO_API, and what follows it, is left to the agent
//                           memfd: the same, and the memory is a memfd, which stands for the
//                           commands
//
//   fill FIRST COUNT        writes to each page what no other has
//   check FIRST COUNT       answers how many pages have something else
//   read FIRST COUNT        reads a byte of each
//   protect-none, protect-read, protect-execute, protect-all FIRST COUNT
//   guard FIRST COUNT       madvise(MADV_GUARD_INSTALL)
//   lock FIRST COUNT        mlock;      lockall 0 0: mlockall
//   discard FIRST COUNT     madvise(MADV_DONTNEED), in a thread that is not waited for
//   move FIRST COUNT        mremap to elsewhere,    likewise
//   unmap FIRST COUNT       munmap,                 likewise
//   pageout FIRST COUNT     madvise(MADV_PAGEOUT)
//   pin FIRST COUNT         io_uring holds the pages, as it does for I/O into them
//   fork FIRST COUNT        a child lives from now on;   child FIRST COUNT: it checks, and ends
//   count 0 MS, meet 0 MS, churn 0 MS              far_storm.h;   shuffle 0 MS: without forks
//   spin 0 0                a thread that does nothing, but always
//   closeall 0 0            closes every descriptor but the socket
//   sandbox 0 0             a thread that calls UFFDIO_MOVE ends from now on, by a seccomp filter
//   exec 0 0                executes another program, and so does not answer
// Each is answered with one packet.
#include "client/far/far_target.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/io_uring.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <thread>

#include "client/far/eviction_helper.h"
#include "client/far/far_storm.h"
#include "client/uffd/uapi.h"

namespace faultline {
namespace {

constexpr int kSocket = 3;

[[noreturn]] void Die(const char* what, int error) {
  fprintf(stderr, "far_target: %s: %s\n", what, strerror(error));
  exit(1);
}

int OpenFreshUserfaultfd() {
  const int fd = static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK));
  if (fd < 0) Die("userfaultfd", errno);
  return fd;
}

int OpenUserfaultfd() {
  const int fd = OpenFreshUserfaultfd();
  uffdio_api api = {};
  api.api = UFFD_API;
  api.features = uapi::kFeatureEventFork | uapi::kFeatureEventRemap | uapi::kFeatureEventRemove |
                 uapi::kFeatureEventUnmap | uapi::kFeatureThreadId;
  if (ioctl(fd, UFFDIO_API, &api) != 0) Die("UFFDIO_API", errno);
  return fd;
}

void Register(int uffd, uint64_t start, uint64_t bytes) {
  uffdio_register request = {};
  request.range = {start, bytes};
  request.mode = UFFDIO_REGISTER_MODE_MISSING;
  if (ioctl(uffd, UFFDIO_REGISTER, &request) != 0) Die("UFFDIO_REGISTER", errno);
}

void Send(const FarTargetHello& hello, int uffd, int command) {
  iovec part{const_cast<FarTargetHello*>(&hello), sizeof hello};
  alignas(cmsghdr) char control[CMSG_SPACE(2 * sizeof(int))] = {};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* const header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(2 * sizeof(int));
  const int descriptors[2] = {uffd, command};
  memcpy(CMSG_DATA(header), descriptors, sizeof descriptors);
  if (sendmsg(kSocket, &message, 0) < 0) Die("sendmsg", errno);
}

class FarTarget {
 public:
  FarTarget(size_t pages, const std::string& option)
      : pages_(pages), fresh_(option == "fresh" || option == "memfd") {
    const size_t bytes = pages * kFarPageBytes;
    if (option == "memfd") {
      memfd_ = static_cast<int>(memfd_create("far_target", MFD_CLOEXEC));
      if (memfd_ < 0 || ftruncate(memfd_, static_cast<off_t>(bytes)) != 0) Die("memfd", errno);
      memory_ = static_cast<std::byte*>(
          mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, memfd_, 0));
      madvise(memory_, bytes, MADV_DONTFORK);
      return;
    }
    constexpr size_t kHuge = size_t{2} << 20;
    void* const at =
        mmap(nullptr, bytes + kHuge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memory_ = reinterpret_cast<std::byte*>((reinterpret_cast<uint64_t>(at) + kHuge - 1) &
                                           ~uint64_t{kHuge - 1});
    if (option == "huge") {
      madvise(memory_, bytes, MADV_HUGEPAGE);
      Fill(0, pages);
    }
  }

  void HandOver() {
    const int uffd = fresh_ ? OpenFreshUserfaultfd() : OpenUserfaultfd();
    const uint64_t start = reinterpret_cast<uint64_t>(memory_);
    if (memfd_ >= 0) return Send({start, pages_ * kFarPageBytes, 0, 0, 0, 0}, uffd, memfd_);
    EvictionHelper helper;
    if (const int error = PrepareEvictionHelper(&helper); error != 0) Die("no helper", error);
    if (!fresh_) {
      Register(uffd, start, pages_ * kFarPageBytes);
      Register(uffd, helper.staging_start, helper.staging_bytes);
    }
    if (const int error = StartEvictionHelper(&helper, uffd); error != 0) Die("no thread", error);
    command_ = reinterpret_cast<const CommandMemory*>(helper.command);
    Send({start, pages_ * kFarPageBytes, helper.staging_start, helper.staging_bytes,
          helper.memory_start, helper.memory_bytes},
         uffd, helper.command_fd);
  }

  std::string Do(const std::string& verb, size_t first, size_t count);

 private:
  std::byte* Page(size_t page) const { return memory_ + page * kFarPageBytes; }

  void Fill(size_t first, size_t count) {
    for (size_t i = first; i < first + count; ++i) {
      for (size_t word = 0; word < kFarPageBytes / 8; ++word) {
        reinterpret_cast<volatile uint64_t*>(Page(i))[word] = (i + 1) * 1'000'003 + word;
      }
    }
  }

  size_t CountWrong(size_t first, size_t count) const {
    size_t wrong = 0;
    for (size_t i = first; i < first + count; ++i) {
      bool right = true;
      for (size_t word = 0; word < kFarPageBytes / 8; ++word) {
        right = right &&
                reinterpret_cast<volatile uint64_t*>(Page(i))[word] == (i + 1) * 1'000'003 + word;
      }
      wrong += right ? 0 : 1;
    }
    return wrong;
  }

  std::string Protect(size_t first, size_t count, int protection);
  std::string Change(const std::string& verb, size_t first, size_t count);
  std::string Fork();
  std::string CheckInChild(size_t first, size_t count);

  size_t pages_;
  const bool fresh_;
  int memfd_ = -1;
  std::byte* memory_;
  const CommandMemory* command_ = nullptr;
  pid_t child_ = 0;
  int to_child_ = -1;
};

std::string Outcome(long result) { return result < 0 ? strerror(errno) : "OK"; }

// Registered buffers are pinned for as long as the ring is there.
std::string Pin(std::byte* start, size_t bytes) {
  io_uring_params params = {};
  const long ring = syscall(SYS_io_uring_setup, 4, &params);
  if (ring < 0) return Outcome(ring);
  const iovec buffer{start, bytes};
  return Outcome(syscall(SYS_io_uring_register, ring, IORING_REGISTER_BUFFERS, &buffer, 1));
}

// For all threads: each one that moves a page ends at that call.
std::string Sandbox() {
  sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args) + 8),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<unsigned>(uapi::kIoctlMove), 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_THREAD),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program{std::size(filter), filter};
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  return Outcome(
      syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program));
}

std::string FarTarget::Protect(size_t first, size_t count, int protection) {
  return Outcome(mprotect(Page(first), count * kFarPageBytes, protection));
}

std::string FarTarget::Change(const std::string& verb, size_t first, size_t count) {
  std::byte* const at = Page(first);
  const size_t bytes = count * kFarPageBytes;
  std::thread([verb, at, bytes] {
    if (verb == "discard") madvise(at, bytes, MADV_DONTNEED);
    if (verb == "unmap") munmap(at, bytes);
    if (verb == "move") {
      void* const to = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      mremap(at, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, to);
    }
  }).detach();
  return "OK";
}

std::string FarTarget::Fork() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return Outcome(-1);
  child_ = fork();
  if (child_ == 0) {
    size_t range[2];
    close(ends[1]);
    if (read(ends[0], range, sizeof range) != sizeof range) _exit(100);
    _exit(CountWrong(range[0], range[1]) == 0 ? 0 : 1);
  }
  close(ends[0]);
  to_child_ = ends[1];
  return "OK";
}

std::string FarTarget::CheckInChild(size_t first, size_t count) {
  const size_t range[2] = {first, count};
  if (write(to_child_, range, sizeof range) != sizeof range) return Outcome(-1);
  close(to_child_);
  int status = -1;
  waitpid(child_, &status, 0);
  return status == 0 ? "OK" : "the child has found wrong pages";
}

std::string FarTarget::Do(const std::string& verb, size_t first, size_t count) {
  if (verb == "fill") Fill(first, count);
  if (verb == "protect-none") return Protect(first, count, PROT_NONE);
  if (verb == "protect-read") return Protect(first, count, PROT_READ);
  if (verb == "protect-execute") return Protect(first, count, PROT_READ | PROT_WRITE | PROT_EXEC);
  if (verb == "protect-all") return Protect(first, count, PROT_READ | PROT_WRITE);
  if (verb == "check") return std::to_string(CountWrong(first, count));
  if (verb == "lock") return Outcome(mlock(Page(first), count * kFarPageBytes));
  if (verb == "lockall") return Outcome(mlockall(MCL_CURRENT));
  if (verb == "pageout") return Outcome(madvise(Page(first), count * kFarPageBytes, MADV_PAGEOUT));
  if (verb == "guard") {
    constexpr int kGuardInstall = 102;  // MADV_GUARD_INSTALL, Linux 6.13
    return Outcome(madvise(Page(first), count * kFarPageBytes, kGuardInstall));
  }
  if (verb == "pin") return Pin(Page(first), count * kFarPageBytes);
  if (verb == "fork") return Fork();
  if (verb == "child") return CheckInChild(first, count);
  if (verb == "sandbox") return Sandbox();
  if (verb == "closeall") {
    syscall(SYS_close_range, 0, kSocket - 1, 0);
    syscall(SYS_close_range, kSocket + 1, ~0u, 0);
  }
  if (verb == "spin") {
    std::thread([] {
      for (;;) asm volatile("pause");
    }).detach();
  }
  if (verb == "exec") execl("/proc/self/exe", "far_target", nullptr);
  const int milliseconds = static_cast<int>(count);
  if (verb == "count") return Count(memory_, pages_, milliseconds);
  if (verb == "meet") return Meet(memory_, *command_, milliseconds);
  if (verb == "churn") return Churn(memory_, pages_, milliseconds, Forks::kSome);
  if (verb == "shuffle") return Churn(memory_, pages_, milliseconds, Forks::kNone);
  if (verb == "discard" || verb == "move" || verb == "unmap") return Change(verb, first, count);
  if (verb == "read") {
    for (size_t i = first; i < first + count; ++i) static_cast<void>(*(volatile char*)Page(i));
  }
  return "OK";
}

int Main(int argc, char** argv) {
  if (argc < 2) pause();  // what `exec` has executed
  setvbuf(stderr, nullptr, _IOLBF, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  FarTarget target(strtoull(argv[1], nullptr, 10), argc > 2 ? argv[2] : "");
  target.HandOver();
  char packet[256];
  for (ssize_t n; (n = recv(kSocket, packet, sizeof packet - 1, 0)) > 0;) {
    packet[n] = '\0';
    char verb[16] = "";
    size_t first = 0, count = 0;
    sscanf(packet, "%15s %zu %zu", verb, &first, &count);
    const std::string answer = target.Do(verb, first, count);
    if (send(kSocket, answer.data(), answer.size(), 0) < 0) return 1;
  }
  return 0;
}

}  // namespace
}  // namespace faultline

int main(int argc, char** argv) { return faultline::Main(argc, argv); }
