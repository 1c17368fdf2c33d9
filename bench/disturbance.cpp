// Counters before and after.
#include "bench/disturbance.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <map>
#include <sstream>

#include "kernels/core/device.h"

namespace moebench {
namespace {

double seconds_of(const timeval& time) {
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
}

// "cpu  user nice system idle iowait irq softirq steal guest guest_nice", in ticks; guest time is
// part of user time.
void read_cpu_times(const HostRoots& roots, MachineSnapshot& snapshot) {
  std::ifstream file(roots.proc / "stat");
  for (std::string line; std::getline(file, line) && line.starts_with("cpu");) {
    if (line.size() < 5 || line[3] != ' ') {
      ++snapshot.num_cpus;
      continue;
    }
    std::istringstream numbers(line.substr(4));
    double user = 0, nice = 0, system = 0, idle = 0, iowait = 0, irq = 0, softirq = 0, steal = 0;
    if (numbers >> user >> nice >> system >> idle >> iowait >> irq >> softirq >> steal) {
      snapshot.busy_s = (user + nice + system + irq + softirq) / snapshot.ticks_per_s;
      snapshot.steal_s = steal / snapshot.ticks_per_s;
    }
  }
}

std::optional<double> mean_clock(const HostRoots& roots) {
  double sum = 0;
  int count = 0;
  for (;; ++count) {
    const auto khz = number_in(roots.sys / "devices/system/cpu" / ("cpu" + std::to_string(count)) /
                               "cpufreq/scaling_cur_freq");
    if (!khz) break;
    sum += static_cast<double>(*khz) / 1000;
  }
  return count > 0 ? std::optional<double>(sum / count) : std::nullopt;
}

bool throttled(const gpu::NvmlReadings& gpu) {
  return gpu.throttle_reasons && *gpu.throttle_reasons != "none" && *gpu.throttle_reasons != "idle";
}

}  // namespace

MachineSnapshot read_machine(const HostRoots& roots, const gpu::Nvml* nvml,
                             const std::string& gpu_address) {
  MachineSnapshot snapshot;
  snapshot.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  snapshot.ticks_per_s = static_cast<double>(sysconf(_SC_CLK_TCK));
  read_cpu_times(roots, snapshot);
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  snapshot.own_s = seconds_of(usage.ru_utime) + seconds_of(usage.ru_stime);
  snapshot.voluntary_switches = usage.ru_nvcsw;
  snapshot.involuntary_switches = usage.ru_nivcsw;
  snapshot.minor_faults = usage.ru_minflt;
  snapshot.major_faults = usage.ru_majflt;
  snapshot.cpu_mhz = mean_clock(roots);
  double load = 0;
  if (std::istringstream(first_line_of(roots.proc / "loadavg")) >> load) {
    snapshot.load_average = load;
  }
  if (nvml != nullptr && nvml->unavailable().empty()) snapshot.gpu = nvml->read(gpu_address);
  return snapshot;
}

MachineReader::MachineReader(std::string gpu_address, HostRoots roots)
    : gpu_address_(std::move(gpu_address)), roots_(std::move(roots)) {
  if (!gpu_address_.empty()) nvml_ = std::make_unique<gpu::Nvml>();
}

MachineSnapshot MachineReader::read() const {
  return read_machine(roots_, nvml_.get(), gpu_address_);
}

std::string gpu_address_for(bool on_gpu) {
  return on_gpu && gpu::unavailable().empty() ? gpu::device().info().pci_bus_id : "";
}

SampleConditions conditions_between(const MachineSnapshot& begin, const MachineSnapshot& end) {
  SampleConditions c;
  c.seconds = end.seconds - begin.seconds;
  const double cpu_seconds = c.seconds * end.num_cpus;
  if (begin.busy_s && end.busy_s && cpu_seconds > 0) {
    const double steal = std::max(0.0, *end.steal_s - *begin.steal_s);
    const double others = std::max(0.0, (*end.busy_s - *begin.busy_s) - (end.own_s - begin.own_s));
    c.steal_share = steal / cpu_seconds;
    c.others_share = others / cpu_seconds;
    c.steal_ticks = steal * end.ticks_per_s;
    c.others_ticks = others * end.ticks_per_s;
  }
  c.voluntary_switches = end.voluntary_switches - begin.voluntary_switches;
  c.involuntary_switches = end.involuntary_switches - begin.involuntary_switches;
  c.minor_faults = end.minor_faults - begin.minor_faults;
  c.major_faults = end.major_faults - begin.major_faults;
  c.cpu_mhz = end.cpu_mhz;
  c.load_average = end.load_average;
  c.gpu = end.gpu;
  return c;
}

std::vector<std::vector<std::string>> find_disturbances(
    const std::vector<SampleConditions>& samples, const DisturbanceLimits& limits) {
  double fastest_cpu = 0;
  double fastest_gpu = 0;
  for (const SampleConditions& s : samples) {
    fastest_cpu = std::max(fastest_cpu, s.cpu_mhz.value_or(0));
    if (s.gpu) fastest_gpu = std::max<double>(fastest_gpu, s.gpu->sm_clock_mhz.value_or(0));
  }
  std::vector<std::vector<std::string>> marks;
  for (const SampleConditions& s : samples) {
    std::vector<std::string>& found = marks.emplace_back();
    // `ticks` of a counter that is exact to one tick at each end.
    const auto rule = [&](bool broken, const char* name) {
      if (broken) found.emplace_back(name);
    };
    rule(s.steal_share.value_or(0) >= limits.steal_share && s.steal_ticks >= limits.least_ticks,
         "steal");
    rule(s.others_share.value_or(0) >= limits.others_share && s.others_ticks >= limits.least_ticks,
         "others");
    rule(s.seconds > 0 && static_cast<double>(s.involuntary_switches) >=
                              limits.preemptions_per_s * std::max(s.seconds, 0.1),
         "preempted");
    rule(s.major_faults > limits.major_faults, "major faults");
    rule(s.minor_faults > limits.minor_faults, "minor faults");
    rule(s.cpu_mhz && *s.cpu_mhz < fastest_cpu * (1 - limits.clock_drop), "cpu clock");
    rule(s.gpu && s.gpu->sm_clock_mhz &&
             static_cast<double>(*s.gpu->sm_clock_mhz) < fastest_gpu * (1 - limits.clock_drop),
         "gpu clock");
    rule(s.gpu && throttled(*s.gpu), "throttled");
  }
  return marks;
}

OrderedJson to_json(const SampleConditions& s) {
  OrderedJson json = {{"seconds", s.seconds}};
  const auto add = [&](const char* name, const auto& value) {
    if (value) json[name] = *value;
  };
  add("steal_share", s.steal_share);
  add("others_share", s.others_share);
  if (s.steal_share) json["steal_ticks"] = s.steal_ticks;
  if (s.others_share) json["others_ticks"] = s.others_ticks;
  json["voluntary_switches"] = s.voluntary_switches;
  json["involuntary_switches"] = s.involuntary_switches;
  json["minor_faults"] = s.minor_faults;
  json["major_faults"] = s.major_faults;
  add("cpu_mhz", s.cpu_mhz);
  add("load_average", s.load_average);
  if (s.gpu) {
    add("gpu_sm_clock_mhz", s.gpu->sm_clock_mhz);
    add("gpu_memory_clock_mhz", s.gpu->memory_clock_mhz);
    add("gpu_power_watts", s.gpu->power_watts);
    add("gpu_temperature_celsius", s.gpu->temperature_celsius);
    add("gpu_throttle_reasons", s.gpu->throttle_reasons);
  }
  return json;
}

SampleConditions conditions_from_json(const Json& json, const std::string& where) {
  JsonFields fields(json, where);
  const auto number = [&](const char* name) -> std::optional<double> {
    const Json* value = fields.find(name);
    if (value == nullptr || value->is_null()) return std::nullopt;
    return fields.required<double>(name);
  };
  const auto integer = [&](const char* name) -> std::optional<int> {
    const Json* value = fields.find(name);
    if (value == nullptr || value->is_null()) return std::nullopt;
    return fields.required<int>(name);
  };
  SampleConditions s;
  s.seconds = fields.required<double>("seconds");
  s.steal_share = number("steal_share");
  s.others_share = number("others_share");
  s.steal_ticks = number("steal_ticks").value_or(0);
  s.others_ticks = number("others_ticks").value_or(0);
  s.voluntary_switches = fields.optional<std::int64_t>("voluntary_switches", 0);
  s.involuntary_switches = fields.optional<std::int64_t>("involuntary_switches", 0);
  s.minor_faults = fields.optional<std::int64_t>("minor_faults", 0);
  s.major_faults = fields.optional<std::int64_t>("major_faults", 0);
  s.cpu_mhz = number("cpu_mhz");
  s.load_average = number("load_average");
  gpu::NvmlReadings gpu;
  gpu.sm_clock_mhz = integer("gpu_sm_clock_mhz");
  gpu.memory_clock_mhz = integer("gpu_memory_clock_mhz");
  gpu.power_watts = number("gpu_power_watts");
  gpu.temperature_celsius = integer("gpu_temperature_celsius");
  const auto reasons = fields.optional<std::string>("gpu_throttle_reasons", "");
  if (!reasons.empty()) gpu.throttle_reasons = reasons;
  if (gpu.sm_clock_mhz || gpu.memory_clock_mhz || gpu.power_watts || gpu.temperature_celsius ||
      gpu.throttle_reasons) {
    s.gpu = gpu;
  }
  return s;
}

OrderedJson disturbance_json(const std::vector<SampleConditions>& samples) {
  const auto marks = find_disturbances(samples);
  std::map<std::string, std::int64_t> reasons;
  OrderedJson list = OrderedJson::array();
  std::int64_t disturbed = 0;
  for (std::size_t i = 0; i < samples.size(); ++i) {
    disturbed += marks[i].empty() ? 0 : 1;
    for (const std::string& mark : marks[i]) ++reasons[mark];
    list.push_back(to_json(samples[i]));
    if (!marks[i].empty()) list.back()["disturbed"] = marks[i];
  }
  return {{"disturbed_samples", disturbed},
          {"reasons", OrderedJson(reasons)},
          {"rules", kDisturbanceRules},
          {"samples", list}};
}

}  // namespace moebench
