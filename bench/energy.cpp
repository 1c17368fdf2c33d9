// powercap zones and NVML.
#include "bench/energy.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>

#include "bench/host_files.h"

namespace moebench {
namespace {

std::optional<double> joules_in(const std::filesystem::path& file) {
  const auto microjoules = number_in(file);
  if (!microjoules || *microjoules < 0) return std::nullopt;
  return static_cast<double>(*microjoules) * 1e-6;
}

// Why a counter cannot be read, in the system's words.
std::string why_unreadable(const std::filesystem::path& file) {
  errno = 0;
  std::ifstream stream(file);
  if (stream) return fmt::format("{} holds no number", file.string());
  return fmt::format("{}: {}{}", file.string(), std::strerror(errno),
                     errno == EACCES ? " (root may read it, or whoever root lets)" : "");
}

}  // namespace

EnergyMeter::EnergyMeter(const std::filesystem::path& powercap, const gpu::Nvml* nvml,
                         std::string gpu_address)
    : nvml_(nvml), gpu_address_(std::move(gpu_address)) {
  std::error_code error;
  std::vector<std::filesystem::path> folders;
  for (const auto& entry : std::filesystem::directory_iterator(powercap, error)) {
    // "intel-rapl:0" and its parts "intel-rapl:0:1"; "intel-rapl-mmio:0" counts the same again.
    if (entry.path().filename().string().starts_with("intel-rapl:")) {
      folders.push_back(entry.path());
    }
  }
  std::sort(folders.begin(), folders.end());
  no_zones_ = fmt::format("{} has no intel-rapl zone", powercap.string());
  for (const std::filesystem::path& folder : folders) {
    const std::string name = first_line_of(folder / "name");
    if (!name.starts_with("package") && name != "dram") continue;
    const std::filesystem::path counter = folder / "energy_uj";
    if (!joules_in(counter)) {
      no_zones_ = why_unreadable(counter);
      continue;
    }
    zones_.push_back({name, counter, joules_in(folder / "max_energy_range_uj").value_or(0)});
  }
  if (gpu_address_.empty()) return;
  if (nvml_ == nullptr || !nvml_->unavailable().empty()) {
    no_gpu_ = nvml_ == nullptr ? "no NVML" : nvml_->unavailable();
    return;
  }
  const gpu::NvmlReadings readings = nvml_->read(gpu_address_);
  gpu_by_counter_ = readings.energy_joules.has_value();
  if (!gpu_by_counter_ && !readings.power_watts)
    no_gpu_ = fmt::format("{}", fmt::join(readings.missing, ", "));
}

bool EnergyMeter::available() const {
  return !zones_.empty() || (!gpu_address_.empty() && no_gpu_.empty());
}

std::string EnergyMeter::source() const {
  std::vector<std::string> parts;
  std::string names;
  for (const Zone& zone : zones_) names += (names.empty() ? "" : ", ") + zone.name;
  parts.push_back(zones_.empty() ? "CPU: not available (" + no_zones_ + ")"
                                 : names + " (RAPL, the whole machine's)");
  if (!gpu_address_.empty()) {
    parts.push_back(!no_gpu_.empty()  ? "GPU: not available (" + no_gpu_ + ")"
                    : gpu_by_counter_ ? "GPU (NVML's counter)"
                                      : "GPU (NVML's power at both ends)");
  }
  return fmt::format("{}", fmt::join(parts, "; "));
}

EnergyMeter::Reading EnergyMeter::read() const {
  Reading reading;
  for (const Zone& zone : zones_) reading.zones.push_back(joules_in(zone.counter));
  if (!gpu_address_.empty() && no_gpu_.empty()) {
    const gpu::NvmlReadings gpu = nvml_->read(gpu_address_);
    reading.gpu_joules = gpu.energy_joules;
    reading.gpu_watts = gpu.power_watts;
  }
  reading.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  return reading;
}

void EnergyMeter::begin() { begin_ = read(); }

Energy EnergyMeter::end() const {
  Energy energy{std::nullopt, source()};
  if (!available()) return energy;
  const Reading now = read();
  double joules = 0;
  for (std::size_t i = 0; i < zones_.size(); ++i) {
    if (i >= begin_.zones.size() || !begin_.zones[i] || !now.zones[i]) {
      return {std::nullopt, why_unreadable(zones_[i].counter)};
    }
    double delta = *now.zones[i] - *begin_.zones[i];
    if (delta < 0) {
      if (!(zones_[i].range_joules > 0)) {
        return {std::nullopt,
                fmt::format("{} started over, and does not say where", zones_[i].counter.string())};
      }
      delta += zones_[i].range_joules;
    }
    joules += delta;
  }
  if (!gpu_address_.empty() && no_gpu_.empty()) {
    if (gpu_by_counter_ && begin_.gpu_joules && now.gpu_joules) {
      joules += *now.gpu_joules - *begin_.gpu_joules;
    } else if (begin_.gpu_watts && now.gpu_watts) {
      joules += (*begin_.gpu_watts + *now.gpu_watts) / 2 * (now.seconds - begin_.seconds);
    } else {
      return {std::nullopt, "the GPU stopped telling its power"};
    }
  }
  energy.joules = joules;
  return energy;
}

}  // namespace moebench
