// The status line of a long run, on a terminal only.
#pragma once

#include <cstdint>
#include <string>

#include "bench/run.h"

namespace moebench::cli {

// Rewrites one line of standard error; does nothing where that is not a terminal, so that logs of
// continuous integration stay short. Erases the line at the end.
class ProgressLine {
 public:
  ProgressLine();
  ~ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  void show(const RunProgress& progress);
  // Prints a line above the status line (also where there is no terminal).
  void say(const std::string& line);

 private:
  void clear();

  bool terminal_;
  bool shown_ = false;
};

}  // namespace moebench::cli
