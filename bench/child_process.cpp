// fork, exec, pipes.
#include "bench/child_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "kernels/core/error.h"

namespace moebench {
namespace {

struct Pipe {
  int ends[2] = {-1, -1};

  Pipe() {
    require_or(ErrorCode::kIo, pipe2(ends, O_CLOEXEC) == 0, "make a pipe: {}",
               std::strerror(errno));
  }
  ~Pipe() {
    close_end(0);
    close_end(1);
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;

  void close_end(int which) {
    if (ends[which] >= 0) close(ends[which]);
    ends[which] = -1;
  }
  int take(int which) {
    const int fd = ends[which];
    ends[which] = -1;
    return fd;
  }
};

}  // namespace

ChildProcess::ChildProcess(const std::filesystem::path& program,
                           const std::vector<std::string>& arguments, std::string_view input,
                           const std::filesystem::path& log, Input then) {
  Pipe to_child;
  Pipe from_child;
  const int log_fd = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  require_or(ErrorCode::kIo, log_fd >= 0, "open {} for writing: {}", log.string(),
             std::strerror(errno));
  // Everything the child needs is prepared here: between fork and exec it may not allocate.
  std::vector<std::string> words = {program.string()};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);

  pid_ = fork();
  if (pid_ == 0) {
    dup2(to_child.ends[0], STDIN_FILENO);
    dup2(from_child.ends[1], STDOUT_FILENO);
    dup2(log_fd, STDERR_FILENO);
    execv(argv[0], argv.data());
    _exit(127);
  }
  close(log_fd);
  require_or(ErrorCode::kIo, pid_ > 0, "start a worker process: {}", std::strerror(errno));
  to_child.close_end(0);
  from_child.close_end(1);
  output_ = from_child.take(0);
  input_ = to_child.take(1);
  send(input);
  if (then == Input::kEnds) {
    close(input_);
    input_ = -1;
  }
}

ChildProcess::~ChildProcess() {
  if (input_ >= 0) close(input_);
  if (output_ >= 0) close(output_);
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
}

ChildProcess::Wait ChildProcess::next_line(int timeout_ms, std::string& line) {
  for (;;) {
    if (const auto newline = buffer_.find('\n'); newline != std::string::npos) {
      line = buffer_.substr(0, newline);
      buffer_.erase(0, newline + 1);
      return Wait::kLine;
    }
    pollfd waiting{output_, POLLIN, 0};
    const int ready = poll(&waiting, 1, timeout_ms);
    if (ready == 0) return Wait::kTimeout;
    if (ready < 0 && errno == EINTR) return Wait::kInterrupted;
    char chunk[65536];
    const ssize_t got = read(output_, chunk, sizeof(chunk));
    if (got < 0 && errno == EINTR) return Wait::kInterrupted;
    if (got <= 0) return Wait::kEnd;
    buffer_.append(chunk, static_cast<std::size_t>(got));
  }
}

void ChildProcess::send(std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = write(input_, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) break;  // the child died; its end will be noticed by the reader
    text.remove_prefix(static_cast<std::size_t>(written));
  }
}

void ChildProcess::signal(int number) {
  if (pid_ > 0) kill(pid_, number);
}

std::string ChildProcess::wait_for_end() {
  int status = 0;
  while (pid_ > 0 && waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  if (WIFSIGNALED(status)) {
    const int number = WTERMSIG(status);
    return fmt::format("was killed by signal {} ({}){}", number, strsignal(number),
                       number == SIGKILL ? ", often by the system for lack of memory" : "");
  }
  const int code = WEXITSTATUS(status);
  return code == 0 || code == 2 ? "" : fmt::format("exited with code {}", code);
}

}  // namespace moebench
