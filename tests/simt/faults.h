// Planted faults: small kernels with one mistake each, and a right twin. They prove that the test
// suite bites: see test_faults.cpp.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace moebench::test {

struct Fault {
  std::string name;
  // What finds it: the machine itself or wrong results, or ThreadSanitizer.
  bool by_machine = false, by_thread = false;
  // In the machine's message. Empty if wrong results alone show it.
  std::string words;
  // Runs the kernel, faulty or right, as the machine is set. True if its results are right; throws
  // Error if the machine finds something.
  std::function<bool(bool faulty)> works;
};

std::vector<Fault> synchronous_faults();   // barriers, shuffles, bounds
std::vector<Fault> asynchronous_faults();  // copies, mbarriers, wgmma
std::vector<Fault> launch_faults();        // kernels that overlap, fences between proxies
std::vector<Fault> all_faults();

}  // namespace moebench::test
