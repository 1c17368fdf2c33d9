// A PostgreSQL server of a test's own, from Debian's package: on loopback, in a temporary folder,
// as a user that is not root, gone with the process.
#pragma once

#include <arpa/inet.h>
#include <grp.h>
#include <netinet/in.h>
#include <pwd.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <optional>
#include <thread>

#include "tests/support/process.h"

namespace moebench::test {

// Where initdb and postgres lie; nothing if the package is not installed.
inline std::optional<std::filesystem::path> postgres_programs() {
  std::optional<std::filesystem::path> newest;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator("/usr/lib/postgresql", ignored)) {
    const auto bin = entry.path() / "bin";
    if (!std::filesystem::exists(bin / "initdb")) continue;
    if (!newest || bin > *newest) newest = bin;
  }
  return newest;
}

class PostgresServer {
 public:
  explicit PostgresServer(const std::filesystem::path& programs) : programs_(programs) {
    if (geteuid() == 0) {
      const passwd* nobody = getpwnam("nobody");
      if (nobody == nullptr) throw std::runtime_error("start PostgreSQL: there is no user nobody");
      uid_ = nobody->pw_uid;
      gid_ = nobody->pw_gid;
      std::filesystem::permissions(folder_.path(), std::filesystem::perms(0755));
      std::filesystem::create_directory(data());
      if (chown(data().c_str(), uid_, gid_) != 0) throw std::runtime_error("chown failed");
    }
    const pid_t made = start({(programs_ / "initdb").string(), "-D", data().string(), "-U", "test",
                              "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C"});
    int status = 0;
    if (waitpid(made, &status, 0) != made || status != 0) {
      throw std::runtime_error("initdb failed: " + read_file(folder_.path() / "log"));
    }
    port_ = free_port();
    server_ = start({(programs_ / "postgres").string(), "-D", data().string(), "-F", "-h",
                     "127.0.0.1", "-p", std::to_string(port_), "-k", ""});
    const std::string ready =
        (programs_ / "pg_isready").string() + " -h 127.0.0.1 -p " + std::to_string(port_);
    for (int i = 0; run_shell(ready).exit_code != 0; ++i) {
      if (i == 300) {
        throw std::runtime_error("PostgreSQL did not start: " + read_file(folder_.path() / "log"));
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
  }
  ~PostgresServer() {
    kill(server_, SIGQUIT);  // at once: its data is going anyway
    waitpid(server_, nullptr, 0);
  }
  PostgresServer(const PostgresServer&) = delete;
  PostgresServer& operator=(const PostgresServer&) = delete;

  // The url of a new, empty database.
  std::string new_database() {
    const std::string name = "d" + std::to_string(++databases_);
    const std::string at = " -h 127.0.0.1 -p " + std::to_string(port_) + " -U test ";
    const ProcessResult made = run_shell((programs_ / "createdb").string() + at + name);
    if (made.exit_code != 0) throw std::runtime_error("createdb failed: " + made.err);
    return "postgresql://test@127.0.0.1:" + std::to_string(port_) + "/" + name;
  }

 private:
  std::filesystem::path data() const { return folder_.path() / "data"; }

  static int free_port() {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (bind(fd, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
        getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
      throw std::runtime_error("no free port");
    }
    close(fd);
    return ntohs(address.sin_port);
  }

  pid_t start(const std::vector<std::string>& words) {
    const std::string log = (folder_.path() / "log").string();
    const pid_t pid = fork();
    if (pid != 0) return pid;
    if (freopen(log.c_str(), "a", stdout) == nullptr || dup2(1, 2) < 0) _exit(120);
    if (uid_ != 0 && (setgroups(0, nullptr) != 0 || setgid(gid_) != 0 || setuid(uid_) != 0)) {
      _exit(121);
    }
    prctl(PR_SET_PDEATHSIG, SIGQUIT);  // a test that dies takes its server along
    if (chdir("/") != 0) _exit(122);
    std::vector<char*> arguments;
    for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
    arguments.push_back(nullptr);
    execv(arguments[0], arguments.data());
    _exit(123);
  }

  std::filesystem::path programs_;
  TemporaryDirectory folder_;
  uid_t uid_ = 0;
  gid_t gid_ = 0;
  int port_ = 0;
  int databases_ = 0;
  pid_t server_ = 0;
};

}  // namespace moebench::test
