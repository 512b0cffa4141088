// SPDX-License-Identifier: Apache-2.0
//
// What `faultline run` tells libfaultline-run-preload.so in the environment of the program that it
// starts, which hands it on to every program that this one executes.
#ifndef FAULTLINE_CLIENT_RUN_RUN_PROTOCOL_H_
#define FAULTLINE_CLIENT_RUN_RUN_PROTOCOL_H_

namespace faultline {

inline constexpr char kRunSocket[] = "FAULTLINE_RUN_SOCKET";  // of the agent
inline constexpr char kRunVolume[] = "FAULTLINE_RUN_VOLUME";  // with what its volumes' names begin
inline constexpr char kRunLeast[] = "FAULTLINE_RUN_LEAST";    // bytes: smaller areas stay ordinary
// For the first program only: it is not to run with ordinary memory. Its own value is a volume that
// is there, to be used instead of a new one; "new": a new one.
inline constexpr char kRunFirst[] = "FAULTLINE_RUN_FIRST";

// Address space is all that a volume takes before it is written to.
inline constexpr unsigned long long kRunVolumeBytes = 1ull << 38;

// The exit status of a first program that could not have far memory.
inline constexpr int kRunRefused = 125;

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_RUN_RUN_PROTOCOL_H_
