// SPDX-License-Identifier: Apache-2.0
#include "client/churn/tally.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <new>

namespace faultline::churn {

Tally* Tally::Create() {
  void* memory =
      mmap(nullptr, sizeof(Tally), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  return memory == MAP_FAILED ? nullptr : new (memory) Tally;
}

void Complain(const char* format, ...) {
  char text[4096];
  va_list arguments;
  va_start(arguments, format);
  const int n = vsnprintf(text, sizeof text - 1, format, arguments);
  va_end(arguments);
  size_t length = std::min(static_cast<size_t>(std::max(n, 0)), sizeof text - 2);
  text[length++] = '\n';
  // One write, so that lines of several processes do not mix; there is nobody to tell of an error.
  if (write(STDERR_FILENO, text, length) < 0) return;
}

}  // namespace faultline::churn
