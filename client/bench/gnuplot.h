// SPDX-License-Identifier: Apache-2.0
//
// Drawing with gnuplot, a program that may be there or not.
#ifndef FAULTLINE_CLIENT_BENCH_GNUPLOT_H_
#define FAULTLINE_CLIENT_BENCH_GNUPLOT_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <string>

namespace faultline::bench {

// gnuplot's name for the kind of file that `path` names. INVALID_ARGUMENT unless it ends in .png or
// .svg; FAILED_PRECONDITION, saying what to install, where gnuplot is not found.
absl::StatusOr<std::string> PlotTerminal(const std::string& path);

// Lets gnuplot do what `script` says, which draws into the file `path`.
absl::Status RunGnuplot(const std::string& script, const std::string& path);

// `text` as gnuplot reads it in double quotes.
std::string GnuplotQuoted(absl::string_view text);

}  // namespace faultline::bench

#endif  // FAULTLINE_CLIENT_BENCH_GNUPLOT_H_
