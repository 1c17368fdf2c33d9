// What a result was measured on: machine, system, build. Nothing that names a person or a host.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "kernels/core/json_fields.h"

namespace moebench {

struct GpuEnvironment {
  std::string name;
  std::string uuid;                // "GPU-...", as nvidia-smi says it
  std::string compute_capability;  // "9.0"
  int num_sms = 0;
  std::int64_t memory_bytes = 0;
  std::string driver;        // "580.65.06", or "not available"
  std::string cuda_driver;   // the newest CUDA that the driver is for: "13.0"
  std::string cuda_runtime;  // the CUDA that is linked in
  // Where NVML tells them.
  std::optional<double> power_limit_watts;
  std::optional<int> max_sm_clock_mhz;
  std::optional<int> max_memory_clock_mhz;
  std::optional<bool> ecc;
};

struct Environment {
  std::string cpu;           // "AMD EPYC ..."
  std::string microcode;     // its revision, "0x1000065", or "not available"
  int logical_cpus = 0;      // the machine's
  int usable_cpus = 0;       // this process's affinity
  std::string cpu_features;  // of those that matter to us: "avx2 fma f16c avx512f ..."
  std::int64_t memory_bytes = 0;
  std::string os;                     // "Debian GNU/Linux 12 (bookworm), Linux 6.1.0"
  std::string governor;               // CPU frequency governor, or "not available"
  double load_average = 0;            // one minute, when the run began
  std::string compiler;               // "g++ 12.2.0"
  std::string build_type;             // "Release"
  std::string version;                // of moebench
  std::string git_commit;             // of the source, with "-dirty"; or "not available"
  std::string cuda;                   // of the build: "CUDA 13.0.88 for 90a-real", or "none"
  std::optional<GpuEnvironment> gpu;  // if there is one that this build can use
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
