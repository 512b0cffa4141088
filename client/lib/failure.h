// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_LIB_FAILURE_H_
#define FAULTLINE_CLIENT_LIB_FAILURE_H_

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

namespace faultline {

// What the functions inside the library return: success, or an errno with its message. (The library
// must not bring abseil into the programs that it is loaded into.)
struct [[nodiscard]] Failure {
  int code = 0;  // a positive errno; 0 is success
  std::string message;

  bool ok() const { return code == 0; }
};

inline Failure Success() { return {}; }

// Of `errno`, as "WHAT: its text".
inline Failure SystemFailure(std::string what) {
  const int code = errno;
  return {code, std::move(what) + ": " + strerror(code)};
}

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_LIB_FAILURE_H_
