// That the test suite bites: every planted fault is found by what faults.h says, and no right twin
// is. What ThreadSanitizer finds ends the program, so those faults run in a child process.
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdlib>

#include "tests/simt/faults.h"
#include "tests/simt/support.h"
#include "tests/support/process.h"

namespace moebench::test {
namespace {

// What the machine says of the faulty kernel in one schedule: "" if nothing.
std::string found(const Fault& fault) {
  try {
    return fault.works(true) ? "" : "wrong results";
  } catch (const Error& error) {
    return error.what();
  }
}

std::string program() {
  char path[4096];
  const ssize_t length = readlink("/proc/self/exe", path, sizeof path);
  return {path, static_cast<std::size_t>(length)};
}

[[maybe_unused]] ProcessResult in_child(const Fault& fault) {
  return run_shell("MOEBENCH_SIMT_FAULT='" + fault.name + "' '" + program() + "' '[.fault]' 2>&1");
}

}  // namespace

TEST_CASE("simt: the right twins of the planted faults run in every schedule") {
  for (const Fault& fault : all_faults()) {
    for (const simt::Settings& settings : all_schedules()) {
      INFO(fault.name << ": " << describe(settings));
      const WithSettings with(settings);
      CHECK(fault.works(false));
    }
  }
}

#if !defined(SIMT_TSAN)
TEST_CASE("simt: planted faults are found by the machine, in one schedule or another") {
  for (const Fault& fault : all_faults()) {
    std::string all;
    for (const simt::Settings& settings : all_schedules()) {
      const WithSettings with(settings);
      const std::string message = found(fault);
      if (!message.empty()) all += describe(settings) + ": " + message + "\n";
      if (fault.words == "livelock") break;  // takes a second
    }
    INFO(fault.name << "\n" << all);
    CHECK(all.empty() != fault.by_machine);
    CHECK(all.find(fault.words) != std::string::npos);
  }
}
#else

TEST_CASE("simt: planted faults are found by ThreadSanitizer") {
  for (const Fault& fault : all_faults()) {
    INFO(fault.name);
    if (!fault.by_thread) continue;
    const ProcessResult result = in_child(fault);
    INFO(result.out);
    CHECK(result.exit_code != 0);
    CHECK(result.out.find("ThreadSanitizer: data race") != std::string::npos);
  }
}
#endif

// Run by the test above, in a process of its own.
TEST_CASE("simt: one planted fault", "[.fault]") {
  const char* name = std::getenv("MOEBENCH_SIMT_FAULT");
  REQUIRE(name != nullptr);
  for (const Fault& fault : all_faults()) {
    if (fault.name == name) found(fault);
  }
}

}  // namespace moebench::test
