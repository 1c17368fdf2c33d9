// Snapshots around each sample.
#include "bench/sample_watch.h"

#include "bench/workloads.h"
#include "kernels/core/device.h"

namespace moebench {

SampleWatch::SampleWatch(bool on_gpu, const HostRoots& roots) : roots_(roots) {
  if (on_gpu && gpu::unavailable().empty()) {
    nvml_ = std::make_unique<gpu::Nvml>();
    gpu_address_ = gpu::device().info().pci_bus_id;
  }
  meter_ = std::make_unique<EnergyMeter>(roots.sys / "class/powercap", nvml_.get(), gpu_address_);
}

void SampleWatch::begin() {
  begin_ = read_machine(roots_, nvml_.get(), gpu_address_);
  meter_->begin();
}

void SampleWatch::end() {
  energy_.push_back(meter_->end());
  conditions_.push_back(
      conditions_between(begin_, read_machine(roots_, nvml_.get(), gpu_address_)));
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
  return meter_->source();
}

void SampleWatch::report(double tokens, Record& record) const {
  if (conditions_.empty()) return;
  const OrderedJson disturbance = disturbance_json(conditions_);
  Metric disturbed;
  disturbed.value = disturbance.at("disturbed_samples").get<double>();
  disturbed.unit = "samples";
  disturbed.better = "lower";
  disturbed.count = static_cast<std::int64_t>(conditions_.size());
  record.metrics["disturbed_samples"] = disturbed;
  record.details["disturbance"] = disturbance;
  record.details["energy"] = energy_source();
  Metric per_token;
  if (joules() && tokens > 0) {
    std::vector<double> samples;
    for (const Energy& energy : energy_) samples.push_back(*energy.joules / tokens);
    per_token = median_metric(std::move(samples), "J/token", "lower");
  } else {
    per_token.unit = "J/token";
    per_token.better = "lower";
    per_token.absent = true;
    per_token.interval_method = "not available: " + energy_source();
  }
  record.metrics["joules_per_token"] = per_token;
}

}  // namespace moebench
