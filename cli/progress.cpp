// "[12/43] int4 / nano high  120/200  ETA 1 min 32 s"
#include "cli/progress.h"

#include <fmt/core.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdio>

#include "cli/table.h"

namespace moebench::cli {

ProgressLine::ProgressLine() : terminal_(isatty(STDERR_FILENO) != 0) {}

ProgressLine::~ProgressLine() { clear(); }

void ProgressLine::clear() {
  if (shown_) fmt::print(stderr, "\r\x1b[K");
  shown_ = false;
}

void ProgressLine::show(const RunProgress& progress) {
  if (!terminal_) return;
  std::string line;
  if (progress.cases_total > 0) {
    line = fmt::format("[{}/{}] ", progress.cases_done + 1, progress.cases_total);
  }
  line += progress.current;
  if (progress.within_total > 0) {
    line += fmt::format("  {}/{}", progress.within_done, progress.within_total);
  }
  if (progress.eta_s >= 0) line += fmt::format("  ETA {}", format_seconds(progress.eta_s));
  winsize size{};
  const bool known = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 8;
  // A line that wraps could not be erased.
  line.resize(std::min<std::size_t>(line.size(), known ? size.ws_col - 1U : 78U));
  fmt::print(stderr, "\r\x1b[K{}", line);
  std::fflush(stderr);
  shown_ = true;
}

void ProgressLine::say(const std::string& line) {
  clear();
  fmt::print(stderr, "{}\n", line);
}

}  // namespace moebench::cli
