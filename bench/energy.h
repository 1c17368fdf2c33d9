// Energy of what ran between two moments: the CPU packages' counters (RAPL, by Linux's powercap)
// and the GPU's (NVML: its energy counter, or else its power at both ends).
//
// The counters are the machine's, not this process's: what else ran is in them. Where nothing can
// be read the answer is "not available" with the reason, never 0. Source:
// Documentation/power/powercap/powercap.rst of Linux; energy_uj counts microjoules up to
// max_energy_range_uj and starts over.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kernels/core/nvml.h"

namespace moebench {

struct Energy {
  std::optional<double> joules;  // of all sources together
  std::string source;            // "package-0, package-1 (RAPL)"; or why there is none
};

class EnergyMeter {
 public:
  // `powercap` holds intel-rapl:0 and so on (AMD's are called so too). `gpu_address` as for
  // Nvml::read; empty: no GPU. `nvml` must outlive the meter.
  explicit EnergyMeter(const std::filesystem::path& powercap = "/sys/class/powercap",
                       const gpu::Nvml* nvml = nullptr, std::string gpu_address = "");

  // Whether energy can be measured, and from what; or why not.
  bool available() const;
  std::string source() const;

  void begin();
  // Since begin(), which stays where it was.
  Energy end() const;

 private:
  // A package, or memory beside it. Not psys (it holds the packages), nor core and uncore (they are
  // parts of a package).
  struct Zone {
    std::string name;
    std::filesystem::path counter;  // energy_uj
    double range_joules = 0;        // where it starts over; 0: not known
  };
  struct Reading {
    double seconds = 0;
    std::vector<std::optional<double>> zones;  // joules
    std::optional<double> gpu_joules;
    std::optional<double> gpu_watts;
  };
  Reading read() const;

  std::vector<Zone> zones_;
  std::string no_zones_;  // why there are none
  const gpu::Nvml* nvml_ = nullptr;
  std::string gpu_address_;
  std::string no_gpu_;
  bool gpu_by_counter_ = false;
  Reading begin_;
};

}  // namespace moebench
