// NVML: what the driver tells of a GPU's power, clocks and health. Read only: nothing is ever set.
//
// The library comes with the driver and is opened when asked for (SharedLibrary), with our own
// declarations, since toolkits come without nvml.h.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "kernels/core/shared_library.h"

namespace moebench::gpu {

// Empty: the GPU, its driver or a virtual machine does not tell; `missing` says what NVML said.
struct NvmlReadings {
  std::optional<std::string> name;
  std::optional<std::string> uuid;
  std::optional<double> power_watts;
  std::optional<double> power_limit_watts;  // that is enforced
  std::optional<double> energy_joules;      // since the driver was loaded
  std::optional<int> sm_clock_mhz;
  std::optional<int> memory_clock_mhz;
  std::optional<int> max_sm_clock_mhz;
  std::optional<int> max_memory_clock_mhz;
  std::optional<int> temperature_celsius;
  std::optional<std::string> throttle_reasons;  // "none", or "power cap, thermal (software)"
  std::optional<std::int64_t> memory_total_bytes;
  std::optional<std::int64_t> memory_used_bytes;
  std::optional<bool> ecc;
  std::optional<std::int64_t> ecc_uncorrected_errors;  // since the driver was loaded
  std::vector<std::string> missing;                    // "power: Not Supported"
};

class Nvml {
 public:
  Nvml();  // never throws: see unavailable()
  ~Nvml();
  Nvml(const Nvml&) = delete;
  Nvml& operator=(const Nvml&) = delete;

  // Empty, or why it cannot be asked.
  const std::string& unavailable() const { return unavailable_; }
  std::optional<std::string> driver_version() const;  // "580.65.06"
  // Of the GPU with this address, as in DeviceInfo. Everything is empty if NVML is unavailable.
  NvmlReadings read(const std::string& pci_bus_id) const;

 private:
  SharedLibrary library_;
  std::string unavailable_;
};

}  // namespace moebench::gpu
