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
template <typename... Args>
inline long RawSyscall(long number, Args... args) {
  static_assert(sizeof...(Args) <= 6);
#if defined(__x86_64__)
  long values[6] = {(long)args...};  // NOLINT: whatever it is
  register long r10 asm("r10") = values[3];
  register long r8 asm("r8") = values[4];
  register long r9 asm("r9") = values[5];
  long result;
  asm volatile("syscall"
               : "=a"(result)
               : "a"(number), "D"(values[0]), "S"(values[1]), "d"(values[2]), "r"(r10), "r"(r8),
                 "r"(r9)
               : "rcx", "r11", "memory");
  return result;
#else
  static_cast<void>(number);
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
