// SPDX-License-Identifier: Apache-2.0
//
// faultline top
#include <absl/strings/str_cat.h>
#include <absl/time/clock.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <memory>
#include <string>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "client/cli/agent_query.h"
#include "client/cli/command.h"
#include "client/cli/flags.h"
#include "client/cli/format.h"
#include "client/cli/print.h"
#include "client/cli/top.h"
#include "client/unique_fd.h"

namespace faultline {
namespace {

constexpr absl::Duration kLeastInterval = absl::Milliseconds(100);
constexpr size_t kAnyLines = 1 << 20;
constexpr size_t kAnyColumns = 1 << 12;

struct TopFlags {
  std::string socket;
  absl::Duration interval = absl::Seconds(1);
  bool once = false;
  bool json = false;
};

absl::StatusOr<TopSample> Look(const std::string& socket) {
  absl::StatusOr<std::vector<AttachmentStats>> attachments = QueryAttachments(socket);
  if (!attachments.ok()) return attachments.status();
  return TopSample{std::chrono::steady_clock::now(), *std::move(attachments)};
}

// The terminal while it is ours: keys come at once and are not shown, and what was there before
// comes back. Signals that end the program or tell of another size are read from signals().
class Terminal {
 public:
  Terminal() {
    sigset_t mask;
    sigemptyset(&mask);
    for (int number : {SIGINT, SIGTERM, SIGHUP, SIGWINCH}) sigaddset(&mask, number);
    sigprocmask(SIG_BLOCK, &mask, &mask_before_);
    signals_ = UniqueFd(signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK));
    has_keys_ = tcgetattr(STDIN_FILENO, &before_) == 0;
    if (has_keys_) {
      termios raw = before_;
      raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
      tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    }
    PrintText("\033[?1049h\033[?25l");
  }
  ~Terminal() {
    PrintText("\033[?25h\033[?1049l");
    fflush(stdout);
    if (has_keys_) tcsetattr(STDIN_FILENO, TCSANOW, &before_);
    sigprocmask(SIG_SETMASK, &mask_before_, nullptr);
  }
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  static TopScreen Screen() {
    winsize size{};
    const bool known =
        ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 0 && size.ws_col > 0;
    // The last line stays free: a newline behind it would scroll.
    return {known ? size.ws_row - 1u : 23u, known ? size.ws_col : 80u, TopColour::kAnsi};
  }

  void Show(const std::string& text) {
    // Over what is there, so that it does not flicker.
    std::string frame = "\033[H";
    for (const char c : text) c == '\n' ? frame += "\033[K\n" : frame += c;
    PrintText(frame + "\033[J");
    fflush(stdout);
  }

  enum class Wish { kNone, kRedraw, kQuit };
  // Waits for a key, a signal or `deadline`.
  Wish Wait(absl::Time deadline) {
    std::array<pollfd, 2> polled = {pollfd{signals_.get(), POLLIN, 0},
                                    pollfd{has_keys_ ? STDIN_FILENO : -1, POLLIN, 0}};
    const absl::Duration left = std::max(deadline - absl::Now(), absl::ZeroDuration());
    const int milliseconds =
        static_cast<int>(absl::ToInt64Milliseconds(absl::Ceil(left, absl::Milliseconds(1))));
    if (poll(polled.data(), polled.size(), milliseconds) <= 0) return Wish::kNone;
    signalfd_siginfo info;
    if (polled[0].revents != 0 && read(signals_.get(), &info, sizeof info) == sizeof info) {
      return info.ssi_signo == SIGWINCH ? Wish::kRedraw : Wish::kQuit;
    }
    if (polled[1].revents == 0) return Wish::kNone;
    char key = 0;
    if (read(STDIN_FILENO, &key, 1) != 1) {
      has_keys_ = false;
      return Wish::kNone;
    }
    return key == 'q' || key == 'Q' ? Wish::kQuit : Wish::kRedraw;
  }

 private:
  UniqueFd signals_;
  sigset_t mask_before_;
  bool has_keys_;
  termios before_;
};

std::string TitleOf(const TopFlags& flags, absl::string_view what) {
  return absl::StrCat("faultline top  ",
                      absl::FormatTime("%H:%M:%S", absl::Now(), absl::LocalTimeZone()),
                      "  agent at ", flags.socket, what);
}

// Two looks, and what has happened between them.
absl::Status ShowOnce(const TopFlags& flags) {
  const absl::StatusOr<TopSample> before = Look(flags.socket);
  if (!before.ok()) return before.status();
  absl::SleepFor(flags.interval);
  const absl::StatusOr<TopSample> after = Look(flags.socket);
  if (!after.ok()) return after.status();
  const std::vector<TopRow> rows = TopRows(*before, *after);
  if (flags.json) {
    PrintJson(TopToJson(rows));
  } else {
    PrintText(DrawTop(rows, TitleOf(flags, ""), {kAnyLines, kAnyColumns}));
  }
  return absl::OkStatus();
}

absl::Status ShowUntilQuit(const TopFlags& flags) {
  absl::StatusOr<TopSample> before = Look(flags.socket);
  if (!before.ok()) return before.status();
  absl::StatusOr<TopSample> after = before;
  Terminal terminal;
  for (absl::Time next = absl::Now();;) {
    if (absl::Now() >= next) {
      next = absl::Now() + flags.interval;
      // An agent that is away may come back.
      if (after.ok()) before = after;
      after = Look(flags.socket);
    }
    if (after.ok() && before.ok()) {
      terminal.Show(
          DrawTop(TopRows(*before, *after), TitleOf(flags, "  (q quits)"), Terminal::Screen()));
    } else {
      const TopScreen screen = Terminal::Screen();
      terminal.Show(
          absl::StrCat(TitleOf(flags, "  (q quits)").substr(0, screen.columns), "\n\n",
                       std::string(after.status().message()).substr(0, screen.columns * 2), "\n"));
    }
    if (terminal.Wait(next) == Terminal::Wish::kQuit) return absl::OkStatus();
  }
}

}  // namespace

void RegisterTopCommand(CLI::App* app, Session* session) {
  CLI::App* command = app->add_subcommand(
      "top",
      "Shows the processes that an agent of this machine serves, how fast, and what becomes of "
      "their memory, until q is pressed. Without a terminal, once.");
  const auto flags = std::make_shared<TopFlags>();
  command->add_option("--socket", flags->socket, "Path of the agent's handover socket")
      ->envname("FAULTLINE_SOCKET")
      ->default_val("/run/faultline/agent.sock");
  AddParsed(command, "--interval", "DURATION [1s]",
            "Between two looks, of which the difference is shown", &ParseDuration,
            &flags->interval);
  command->add_flag("--once", flags->once, "Show it once and end");
  command->add_flag("--json", flags->json, "Once, as JSON, like --output=json");
  command->footer("Example:  faultline top --once --json | jq '.[].faults_per_second'");
  command->callback([session, flags] {
    session->run = [=]() -> absl::Status {
      flags->json = flags->json || session->output == OutputFormat::kJson;
      if (flags->interval < kLeastInterval) {
        return absl::InvalidArgumentError(absl::StrCat(
            "--interval has to be ", absl::FormatDuration(kLeastInterval), " at least"));
      }
      const bool once = flags->once || flags->json || isatty(STDOUT_FILENO) == 0;
      return once ? ShowOnce(*flags) : ShowUntilQuit(*flags);
    };
  });
}

}  // namespace faultline
