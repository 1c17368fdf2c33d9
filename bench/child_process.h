// A child process whose standard output arrives line by line.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace moebench {

class ChildProcess {
 public:
  // What happens to the child's standard input once `input` is written.
  enum class Input { kEnds, kStaysOpen };

  // Starts `program` with `arguments`; `input` goes to its standard input, its standard error is
  // appended to `log`. Throws Error(kIo).
  ChildProcess(const std::filesystem::path& program, const std::vector<std::string>& arguments,
               std::string_view input, const std::filesystem::path& log, Input then = Input::kEnds);
  // Kills it if it still runs.
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  enum class Wait { kLine, kEnd, kTimeout, kInterrupted };

  // The next line of output (without its newline), its end, a pause longer than `timeout_ms`, or
  // a signal to this process.
  Wait next_line(int timeout_ms, std::string& line);

  // More standard input, where it stays open. A child that died is noticed by next_line.
  void send(std::string_view text);

  void signal(int number);

  // Waits for the end. "" after exit code 0 or 2, else "exited with code 7" or "was killed by
  // signal 11 (Segmentation fault)".
  std::string wait_for_end();

 private:
  pid_t pid_ = -1;
  int input_ = -1;
  int output_ = -1;
  std::string buffer_;
};

}  // namespace moebench
