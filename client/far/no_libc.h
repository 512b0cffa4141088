// SPDX-License-Identifier: Apache-2.0
//
// What a thread needs that cannot use the C library: its errno is thread-local, and its functions
// are found through tables that may be filled in at the first call, under a lock.
#ifndef FAULTLINE_CLIENT_FAR_NO_LIBC_H_
#define FAULTLINE_CLIENT_FAR_NO_LIBC_H_

#include <cerrno>
#include <cstddef>
#include <cstdint>

namespace faultline {

// A system call. Takes pointers and numbers; returns what the kernel does: a negative errno for an
// error. Always -ENOSYS where this is no x86-64.
template <typename A = long, typename B = long, typename C = long, typename D = long,
          typename E = long, typename F = long>
inline long RawSyscall(long number, A a = A(), B b = B(), C c = C(), D d = D(), E e = E(),
                       F f = F()) {
#if defined(__x86_64__)
  register long r10 asm("r10") = (long)d;  // NOLINT: whatever it is
  register long r8 asm("r8") = (long)e;    // NOLINT
  register long r9 asm("r9") = (long)f;    // NOLINT
  long result;
  asm volatile("syscall"
               : "=a"(result)
               : "a"(number), "D"((long)a), "S"((long)b), "d"((long)c), "r"(r10), "r"(r8), "r"(r9)
               : "rcx", "r11", "memory");
  return result;
#else
  return -ENOSYS;
#endif
}

inline void CopyBytes(std::byte* to, const std::byte* from, size_t count) {
#if defined(__x86_64__)
  asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
#else
  while (count-- > 0) *to++ = *from++;
#endif
}

// Tells the processor that the thread spins.
inline void Pause() {
#if defined(__x86_64__)
  asm volatile("pause");
#endif
}

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_FAR_NO_LIBC_H_
