// What stands beside every timed sample: how the machine disturbed it (bench/disturbance.h), and
// what energy it took (bench/energy.h).
//
//   SampleWatch watch(gpu_address_for(on_gpu));
//   watch.begin(); ...one repetition...; watch.end();   // for each
//   watch.report(tokens, record);
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "bench/disturbance.h"
#include "bench/energy.h"
#include "bench/record.h"

namespace moebench {

class SampleWatch {
 public:
  // Of the GPU at that address, if it is not empty, clocks and energy count too.
  explicit SampleWatch(std::string gpu_address, const HostRoots& roots = {});

  void begin();
  void end();
  bool empty() const { return conditions_.empty(); }

  // Joules of all samples; empty, with the reason in `energy_source`, where it was not measured.
  std::optional<double> joules() const;
  std::string energy_source() const;

  // record.details["disturbance"], and metrics "disturbed_samples" and "joules_per_token", the
  // latter the median over samples of `tokens` each, absent with its reason where there is none.
  void report(double tokens, Record& record) const;
  // The same where samples are stretches of one load: all their energy by all its `tokens`.
  void report_load(double tokens, Record& record) const;

 private:
  void report_disturbance(Record& record) const;

  MachineReader machine_;
  EnergyMeter meter_;
  MachineSnapshot begin_;
  std::vector<SampleConditions> conditions_;
  std::vector<Energy> energy_;
};

}  // namespace moebench
