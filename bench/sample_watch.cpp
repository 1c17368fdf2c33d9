// Snapshots around each sample.
#include "bench/sample_watch.h"

#include "bench/workloads.h"

namespace moebench {

SampleWatch::SampleWatch(std::string gpu_address, const HostRoots& roots)
    : machine_(std::move(gpu_address), roots),
      meter_(roots.sys / "class/powercap", machine_.nvml(), machine_.gpu_address()) {}

void SampleWatch::begin() {
  begin_ = machine_.read();
  meter_.begin();
}

void SampleWatch::end() {
  energy_.push_back(meter_.end());
  conditions_.push_back(conditions_between(begin_, machine_.read()));
}

std::optional<double> SampleWatch::joules() const {
  double sum = 0;
  for (const Energy& energy : energy_) {
    if (!energy.joules) return std::nullopt;
    sum += *energy.joules;
  }
  return energy_.empty() ? std::nullopt : std::optional<double>(sum);
}

std::string SampleWatch::energy_source() const {
  for (const Energy& energy : energy_) {
    if (!energy.joules) return energy.source;
  }
  return meter_.source();
}

void SampleWatch::report_disturbance(Record& record) const {
  const OrderedJson disturbance = disturbance_json(conditions_);
  Metric disturbed;
  disturbed.value = disturbance.at("disturbed_samples").get<double>();
  disturbed.unit = "samples";
  disturbed.better = "lower";
  disturbed.count = static_cast<std::int64_t>(conditions_.size());
  record.metrics["disturbed_samples"] = disturbed;
  record.details["disturbance"] = disturbance;
  record.details["energy"] = energy_source();
  Metric no_energy;
  no_energy.unit = "J/token";
  no_energy.better = "lower";
  no_energy.absent = true;
  no_energy.interval_method = "not available: " + energy_source();
  record.metrics["joules_per_token"] = no_energy;
}

void SampleWatch::report(double tokens, Record& record) const {
  if (conditions_.empty()) return;
  report_disturbance(record);
  if (!joules() || !(tokens > 0)) return;
  std::vector<double> samples;
  for (const Energy& energy : energy_) samples.push_back(*energy.joules / tokens);
  record.metrics["joules_per_token"] = median_metric(std::move(samples), "J/token", "lower");
}

void SampleWatch::report_load(double tokens, Record& record) const {
  if (conditions_.empty()) return;
  report_disturbance(record);
  if (!joules() || !(tokens > 0)) return;
  record.metrics["joules_per_token"] = plain_metric(*joules() / tokens, "J/token", "lower",
                                                    static_cast<std::int64_t>(energy_.size()));
}

}  // namespace moebench
