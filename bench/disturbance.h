// Was a timed sample disturbed? What the machine did meanwhile: others' use of the CPUs, time that
// the hypervisor took, switches and page faults of this process, clocks, and what throttled the
// GPU.
//
// A sample is the time between two snapshots. It is marked by the rules of kDisturbanceRules, and
// kept: marks are counted in the record, and nobody drops a sample silently.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "bench/host_files.h"
#include "kernels/core/json_fields.h"
#include "kernels/core/nvml.h"

namespace moebench {

// What is compared with what; the numbers are in DisturbanceLimits.
struct DisturbanceLimits {
  // The kernel counts CPU time in ticks, of 10 ms nearly everywhere: fewer than this many say
  // nothing, whatever their share of a short sample.
  double least_ticks = 5;
  double steal_share = 0.01;        // of the CPU time of the sample
  double others_share = 0.05;       // of the CPU time of the sample
  double preemptions_per_s = 200;   // involuntary context switches of this process
  std::int64_t major_faults = 0;    // read from the disk
  std::int64_t minor_faults = 256;  // 1 MiB of fresh 4 KiB pages
  double clock_drop = 0.10;         // below the fastest sample of the series
};
// For people, as reports print them.
inline constexpr std::string_view kDisturbanceRules =
    "steal: the hypervisor took 1 % of the CPU time or more (and 5 ticks); others: other processes "
    "took 5 % or more (and 5 ticks); preempted: 200 involuntary context switches per second or "
    "more; major faults: any page came from the disk; minor faults: more than 256 fresh pages; "
    "clock: CPU or GPU clock 10 % below the fastest sample's; throttled: the GPU names a reason "
    "other than idle";

// Counters since boot or since the process began, at one moment.
struct MachineSnapshot {
  double seconds = 0;  // of a steady clock
  // CPU time in seconds, over all CPUs; empty where /proc/stat does not tell.
  std::optional<double> busy_s;  // user, nice, system, irq, softirq: of everybody
  std::optional<double> steal_s;
  double own_s = 0;  // this process's, its threads included
  int num_cpus = 0;  // in /proc/stat
  double ticks_per_s = 100;
  std::int64_t voluntary_switches = 0;
  std::int64_t involuntary_switches = 0;
  std::int64_t minor_faults = 0;
  std::int64_t major_faults = 0;
  std::optional<double> cpu_mhz;  // mean over CPUs
  std::optional<double> load_average;
  std::optional<gpu::NvmlReadings> gpu;
};

// `nvml` and `gpu_address` as for Nvml::read; null: the plan uses no GPU.
MachineSnapshot read_machine(const HostRoots& roots = {}, const gpu::Nvml* nvml = nullptr,
                             const std::string& gpu_address = "");

// Reads the machine again and again, the GPU at that address included ("": none).
class MachineReader {
 public:
  explicit MachineReader(std::string gpu_address = "", HostRoots roots = {});
  MachineSnapshot read() const;
  const HostRoots& roots() const { return roots_; }
  const gpu::Nvml* nvml() const { return nvml_.get(); }  // null without a GPU
  const std::string& gpu_address() const { return gpu_address_; }

 private:
  std::string gpu_address_;
  HostRoots roots_;
  std::unique_ptr<gpu::Nvml> nvml_;
};
// The address of the GPU that plans run on, if `on_gpu` and there is one; else "".
std::string gpu_address_for(bool on_gpu);

struct SampleConditions {
  double seconds = 0;
  std::optional<double> steal_share;   // of num_cpus * seconds
  std::optional<double> others_share;  // likewise; never below 0
  double steal_ticks = 0;
  double others_ticks = 0;
  std::int64_t voluntary_switches = 0;
  std::int64_t involuntary_switches = 0;
  std::int64_t minor_faults = 0;
  std::int64_t major_faults = 0;
  std::optional<double> cpu_mhz;         // at the end
  std::optional<double> load_average;    // at the end
  std::optional<gpu::NvmlReadings> gpu;  // at the end
};
SampleConditions conditions_between(const MachineSnapshot& begin, const MachineSnapshot& end);

// For each sample of a series the names of the rules that mark it: "steal", "others", "preempted",
// "major faults", "minor faults", "cpu clock", "gpu clock", "throttled".
std::vector<std::vector<std::string>> find_disturbances(
    const std::vector<SampleConditions>& samples, const DisturbanceLimits& limits = {});

// One sample as an object; what could not be read is absent. Processes tell each other by it.
OrderedJson to_json(const SampleConditions& sample);
// Throws Error(kInvalidArgument) naming `where`. Fields that are not known are passed over: they
// may come from another version.
SampleConditions conditions_from_json(const Json& json, const std::string& where);

// {"disturbed_samples": n, "reasons": {rule: count}, "rules": text, "samples": [{...,
//  "disturbed": [rule, ...]}]}; what could not be read is absent.
OrderedJson disturbance_json(const std::vector<SampleConditions>& samples);

}  // namespace moebench
