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

}  // namespace

Environment read_environment() {
  Environment e;
  e.cpu = field_of("/proc/cpuinfo", "model name", ':');
  if (e.cpu.empty()) e.cpu = "not available";
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
  return e;
}

OrderedJson to_json(const Environment& e) {
  return {{"cpu", e.cpu},
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
          {"git_commit", e.git_commit}};
}

std::string utc_now() {
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)));
}

std::int64_t resident_bytes() { return kilobytes("/proc/self/status", "VmRSS"); }
std::int64_t peak_resident_bytes() { return kilobytes("/proc/self/status", "VmHWM"); }

}  // namespace moebench
