// What stands beside every timed sample: how the machine disturbed it (bench/disturbance.h), and
// what energy it took (bench/energy.h).
//
//   SampleWatch watch(on_gpu);
//   watch.begin(); ...one repetition...; watch.end();   // for each
//   watch.report(tokens, record);
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "bench/disturbance.h"
#include "bench/energy.h"
#include "bench/record.h"

namespace moebench {

class SampleWatch {
 public:
  // `on_gpu`: the plan runs there, so its clocks and energy count too.
  explicit SampleWatch(bool on_gpu, const HostRoots& roots = {});

  void begin();
  void end();
  bool empty() const { return conditions_.empty(); }

  // Joules of all samples; empty, with the reason in `energy_source`, where it was not measured.
  std::optional<double> joules() const;
  std::string energy_source() const;

  // record.details["disturbance"], and metrics "disturbed_samples" and "joules_per_token", the
  // latter the median over samples of `tokens` each, absent with its reason where there is none.
  void report(double tokens, Record& record) const;

 private:
  HostRoots roots_;
  std::unique_ptr<gpu::Nvml> nvml_;
  std::string gpu_address_;
  std::unique_ptr<EnergyMeter> meter_;
  MachineSnapshot begin_;
  std::vector<SampleConditions> conditions_;
  std::vector<Energy> energy_;
};

}  // namespace moebench
