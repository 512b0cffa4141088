// SPDX-License-Identifier: Apache-2.0
#include "client/bench/gnuplot.h"

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_replace.h>
#include <absl/strings/str_split.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>

namespace faultline::bench {
namespace {

absl::Status CheckGnuplot() {
  const char* path = getenv("PATH");
  for (const auto directory : absl::StrSplit(path == nullptr ? "" : path, ':')) {
    if (access(absl::StrCat(directory, "/gnuplot").c_str(), X_OK) == 0) return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      "--plot needs gnuplot, which is not installed: install it (Debian: gnuplot-nox), or leave "
      "--plot out and take --csv");
}

}  // namespace

absl::StatusOr<std::string> PlotTerminal(const std::string& path) {
  const bool svg = absl::EndsWith(path, ".svg");
  if (!svg && !absl::EndsWith(path, ".png")) {
    return absl::InvalidArgumentError(
        absl::StrCat("--plot=", path, ": the name must end in .png or .svg"));
  }
  if (absl::Status status = CheckGnuplot(); !status.ok()) return status;
  return svg ? "svg" : "pngcairo";
}

absl::Status RunGnuplot(const std::string& script, const std::string& path) {
  FILE* gnuplot = popen("exec gnuplot", "we");
  if (gnuplot == nullptr) return absl::ErrnoToStatus(errno, "cannot start gnuplot");
  // What it has not read, pclose tells: gnuplot has ended with an error.
  static_cast<void>(fwrite(script.data(), 1, script.size(), gnuplot));
  const int status = pclose(gnuplot);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("gnuplot has failed with the status ", status,
                                          "; it cannot write ", path,
                                          ", or does not understand the script"));
}

std::string GnuplotQuoted(absl::string_view text) {
  return absl::StrCat("\"", absl::StrReplaceAll(text, {{"\\", "\\\\"}, {"\"", "'"}}), "\"");
}

}  // namespace faultline::bench
