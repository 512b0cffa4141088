// SPDX-License-Identifier: Apache-2.0
//
// The userfaultfd UAPI as of Linux 6.18, whatever the build host's header knows. A name that the
// header may have too is spelled in our own style; every value is checked against the formula of
// the kernel's _IOWR, and every struct against its size in the kernel.
#ifndef FAULTLINE_CLIENT_UFFD_UAPI_H_
#define FAULTLINE_CLIENT_UFFD_UAPI_H_

#include <linux/userfaultfd.h>
#include <sys/ioctl.h>

#include <cstdint>

namespace faultline::uapi {

// Features of UFFDIO_API, with the kernel that brought them.
inline constexpr uint64_t kFeaturePagefaultFlagWp = 1u << 0;    // 5.7
inline constexpr uint64_t kFeatureEventFork = 1u << 1;          // 4.11; needs CAP_SYS_PTRACE
inline constexpr uint64_t kFeatureEventRemap = 1u << 2;         // 4.11
inline constexpr uint64_t kFeatureEventRemove = 1u << 3;        // 4.11
inline constexpr uint64_t kFeatureMissingShmem = 1u << 5;       // 4.11
inline constexpr uint64_t kFeatureEventUnmap = 1u << 6;         // 4.11
inline constexpr uint64_t kFeatureThreadId = 1u << 8;           // 4.14
inline constexpr uint64_t kFeatureWpHugetlbfsShmem = 1u << 12;  // 5.19
inline constexpr uint64_t kFeaturePoison = 1u << 14;            // 6.6
inline constexpr uint64_t kFeatureMove = 1u << 16;              // 6.8

// UFFDIO_POISON (6.6): later access to the range gets SIGBUS.
struct Poison {
  uffdio_range range;
  uint64_t mode;
  int64_t updated;  // out: bytes, or a negative errno
};
static_assert(sizeof(Poison) == 32);
inline constexpr unsigned long kIoctlPoison = _IOWR(UFFDIO, 0x08, Poison);
static_assert(kIoctlPoison == 0xc020aa08);

// UFFDIO_MOVE (6.8): moves pages inside one address space; of use to an in-process pager only.
struct Move {
  uint64_t dst, src, len, mode;
  int64_t move;
};
static_assert(sizeof(Move) == 40);
inline constexpr unsigned long kIoctlMove = _IOWR(UFFDIO, 0x05, Move);
static_assert(kIoctlMove == 0xc028aa05);

// What the build host's header does have must agree with the kernel's ABI as well.
static_assert(sizeof(uffd_msg) == 32);
static_assert(UFFDIO_API == 0xc018aa3f);
static_assert(UFFDIO_REGISTER == 0xc020aa00);
static_assert(UFFDIO_UNREGISTER == 0x8010aa01);
static_assert(UFFDIO_WAKE == 0x8010aa02);
static_assert(UFFDIO_COPY == 0xc028aa03);
static_assert(UFFDIO_ZEROPAGE == 0xc020aa04);

// /dev/userfaultfd (6.1): its ioctl takes the flags of userfaultfd(2) and obeys file permissions.
inline constexpr unsigned long kIoctlNew = _IO(0xAA, 0x00);
static_assert(kIoctlNew == 0xaa00);
inline constexpr char kDevice[] = "/dev/userfaultfd";

}  // namespace faultline::uapi

#endif  // FAULTLINE_CLIENT_UFFD_UAPI_H_
