// Running the built program and looking at what it says.
#pragma once

#include <sys/wait.h>

#include <cstdlib>
#include <string>

#include "tests/support/files.h"

namespace moebench::test {

struct ProcessResult {
  int exit_code = -1;  // -1: ended by a signal
  std::string out;
  std::string err;
};

// `arguments` go through the shell: quote what needs quoting.
inline ProcessResult run_shell(const std::string& command) {
  const TemporaryDirectory directory;
  const std::string out = (directory.path() / "out").string();
  const std::string err = (directory.path() / "err").string();
  const int status = std::system(("{ " + command + "; } > " + out + " 2> " + err).c_str());
  ProcessResult result;
  if (WIFEXITED(status)) result.exit_code = WEXITSTATUS(status);
  result.out = read_file(out);
  result.err = read_file(err);
  return result;
}

inline ProcessResult run_moebench(const std::string& arguments) {
  return run_shell(MOEBENCH_PROGRAM " " + arguments);
}

}  // namespace moebench::test
