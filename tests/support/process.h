// Running the built program and looking at what it says.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

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

// The program with words as arguments, its output in a file; so that it can be sent a signal.
inline pid_t start_moebench(const std::vector<std::string>& words,
                            const std::filesystem::path& output) {
  std::vector<std::string> all = {MOEBENCH_PROGRAM};
  all.insert(all.end(), words.begin(), words.end());
  std::vector<char*> argv;
  for (std::string& word : all) argv.push_back(word.data());
  argv.push_back(nullptr);
  const pid_t pid = fork();
  if (pid == 0) {
    if (std::freopen(output.c_str(), "w", stdout) == nullptr) _exit(126);
    dup2(STDOUT_FILENO, STDERR_FILENO);
    execv(argv[0], argv.data());
    _exit(127);
  }
  return pid;
}

}  // namespace moebench::test
