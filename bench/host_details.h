// More of what a result was measured on (bench/environment.h): what changes times without changing
// the processor's name. And what would make this machine quieter.
#pragma once

#include <string>
#include <vector>

#include "bench/host_files.h"
#include "kernels/core/json_fields.h"

namespace moebench {

// {"numa_nodes", "smt", "transparent_huge_pages", "huge_pages", "virtualisation", "cpu_quota",
//  "libraries": {name: version}, "compiler_flags"}; text that cannot be read is "not available",
// numbers that cannot are null. "virtualisation" is a hint: what the system says of itself.
OrderedJson host_details(const HostRoots& roots = {});

// One thing about the machine that matters to timing.
struct IsolationAdvice {
  std::string what;
  bool good = true;
  std::string detail;  // how it is, and where it is not good what would help
};
// SMT, CPU quota, huge pages, others' load, and how to pin a run to CPUs: `usable_cpus` of
// `logical_cpus` are this process's.
std::vector<IsolationAdvice> isolation_advice(int usable_cpus, int logical_cpus,
                                              const HostRoots& roots = {});

}  // namespace moebench
