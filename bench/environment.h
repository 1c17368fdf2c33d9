// What a result was measured on: machine, system, build. Nothing that names a person or a host.
#pragma once

#include <cstdint>
#include <string>

#include "kernels/core/json_fields.h"

namespace moebench {

struct Environment {
  std::string cpu;           // "AMD EPYC ..."
  int logical_cpus = 0;      // the machine's
  int usable_cpus = 0;       // this process's affinity
  std::string cpu_features;  // of those that matter to us: "avx2 fma f16c avx512f ..."
  std::int64_t memory_bytes = 0;
  std::string os;           // "Debian GNU/Linux 12 (bookworm), Linux 6.1.0"
  std::string governor;     // CPU frequency governor, or "not available"
  double load_average = 0;  // one minute, when the run began
  std::string compiler;     // "g++ 12.2.0"
  std::string build_type;   // "Release"
  std::string version;      // of moebench
  std::string git_commit;   // of the source, with "-dirty"; or "not available"
};

Environment read_environment();
OrderedJson to_json(const Environment& environment);

// "2026-01-31T12:00:00Z", now.
std::string utc_now();

// Resident memory of this process, in bytes: now, and the most so far (VmHWM). 0 where /proc does
// not tell.
std::int64_t resident_bytes();
std::int64_t peak_resident_bytes();

}  // namespace moebench
