// Reading /proc, /sys and the build's own facts.
#include "bench/environment.h"

#include <fmt/chrono.h>
#include <sys/utsname.h>

#include <array>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <sstream>
#include <string_view>
#include <thread>

#include "bench/build_info.h"
#include "kernels/core/device.h"
#include "kernels/core/nvml.h"
#include "kernels/core/thread_pool.h"

namespace moebench {
namespace {

// The text after "key" and its separator in a file of "key: value" or KEY="value" lines.
std::string field_of(const char* path, std::string_view key, char separator) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.rfind(key, 0) != 0) continue;
    const auto at = line.find(separator);
    if (at == std::string::npos) continue;
    const auto begin = line.find_first_not_of(" \t\"", at + 1);
    const auto end = line.find_last_not_of(" \t\"");
    if (begin != std::string::npos && end >= begin) return line.substr(begin, end - begin + 1);
  }
  return {};
}

std::string first_line(const char* path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

std::int64_t kilobytes(const char* path, std::string_view key) {
  return std::strtoll(field_of(path, key, ':').c_str(), nullptr, 10) * 1024;
}

std::string interesting_features() {
  constexpr std::array<std::string_view, 9> kWanted = {"avx2",        "fma",      "f16c",
                                                       "avx512f",     "avx512bw", "avx512_vnni",
                                                       "avx512_bf16", "avx_vnni", "amx_int8"};
  const std::string all = fmt::format(" {} ", field_of("/proc/cpuinfo", "flags", ':'));
  std::string found;
  for (const std::string_view feature : kWanted) {
    if (all.find(fmt::format(" {} ", feature)) == std::string::npos) continue;
    found += (found.empty() ? "" : " ");
    found += feature;
  }
  return found;
}

std::string version_text(int version) {
  return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

// Makes no CUDA context: the parent of a run calls this, and leaves the GPU's memory to its
// children.
std::optional<GpuEnvironment> read_gpu() {
  if (!gpu::unavailable().empty()) return std::nullopt;
  const gpu::DeviceInfo& info = gpu::device().info();
  const gpu::Nvml nvml;
  const gpu::NvmlReadings readings = nvml.read(info.pci_bus_id);
  GpuEnvironment g;
  g.name = info.name;
  g.uuid = info.uuid;
  g.compute_capability = fmt::format("{}.{}", info.compute_major, info.compute_minor);
  g.num_sms = info.num_sms;
  g.memory_bytes = static_cast<std::int64_t>(info.total_bytes);
  g.driver = nvml.driver_version().value_or("not available");
  g.cuda_driver = version_text(info.driver_version);
  g.cuda_runtime = version_text(info.runtime_version);
  g.power_limit_watts = readings.power_limit_watts;
  g.max_sm_clock_mhz = readings.max_sm_clock_mhz;
  g.max_memory_clock_mhz = readings.max_memory_clock_mhz;
  g.ecc = readings.ecc;
  return g;
}

OrderedJson to_json(const GpuEnvironment& g) {
  OrderedJson json = {{"name", g.name},
                      {"uuid", g.uuid},
                      {"compute_capability", g.compute_capability},
                      {"num_sms", g.num_sms},
                      {"memory_bytes", g.memory_bytes},
                      {"driver", g.driver},
                      {"cuda_driver", g.cuda_driver},
                      {"cuda_runtime", g.cuda_runtime}};
  if (g.power_limit_watts.has_value()) json["power_limit_watts"] = *g.power_limit_watts;
  if (g.max_sm_clock_mhz.has_value()) json["max_sm_clock_mhz"] = *g.max_sm_clock_mhz;
  if (g.max_memory_clock_mhz.has_value()) json["max_memory_clock_mhz"] = *g.max_memory_clock_mhz;
  if (g.ecc.has_value()) json["ecc"] = *g.ecc;
  return json;
}

}  // namespace

Environment read_environment() {
  Environment e;
  e.cpu = field_of("/proc/cpuinfo", "model name", ':');
  if (e.cpu.empty()) e.cpu = "not available";
  e.microcode = field_of("/proc/cpuinfo", "microcode", ':');
  if (e.microcode.empty()) e.microcode = "not available";
  e.logical_cpus = static_cast<int>(std::thread::hardware_concurrency());
  e.usable_cpus = available_cpus();
  e.cpu_features = interesting_features();
  e.memory_bytes = kilobytes("/proc/meminfo", "MemTotal");
  utsname system{};
  uname(&system);
  e.os = fmt::format("{}, {} {}", field_of("/etc/os-release", "PRETTY_NAME", '='), system.sysname,
                     system.release);
  e.governor = first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
  if (e.governor.empty()) e.governor = "not available";
  std::istringstream(first_line("/proc/loadavg")) >> e.load_average;
#ifdef __clang__
  e.compiler =
      fmt::format("clang++ {}.{}.{}", __clang_major__, __clang_minor__, __clang_patchlevel__);
#else
  e.compiler = fmt::format("g++ {}.{}.{}", __GNUC__, __GNUC_MINOR__, __GNUC_PATCHLEVEL__);
#endif
  e.build_type = build_info::kBuildType;
  e.version = build_info::kVersion;
  e.git_commit = build_info::kGitCommit;
  e.cuda = build_info::kCuda.empty() ? "none" : build_info::kCuda;
  e.gpu = read_gpu();
  return e;
}

OrderedJson to_json(const Environment& e) {
  OrderedJson json = {{"cpu", e.cpu},
                      {"microcode", e.microcode},
                      {"logical_cpus", e.logical_cpus},
                      {"usable_cpus", e.usable_cpus},
                      {"cpu_features", e.cpu_features},
                      {"memory_bytes", e.memory_bytes},
                      {"os", e.os},
                      {"governor", e.governor},
                      {"load_average", e.load_average},
                      {"compiler", e.compiler},
                      {"build_type", e.build_type},
                      {"version", e.version},
                      {"git_commit", e.git_commit},
                      {"cuda", e.cuda}};
  if (e.gpu.has_value()) json["gpu"] = to_json(*e.gpu);
  return json;
}

std::string utc_now() {
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)));
}

std::int64_t resident_bytes() { return kilobytes("/proc/self/status", "VmRSS"); }
std::int64_t peak_resident_bytes() { return kilobytes("/proc/self/status", "VmHWM"); }

}  // namespace moebench
