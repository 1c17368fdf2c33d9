// Facts from /proc, /sys and the libraries' headers.
#include "bench/host_details.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <gnu/libc-version.h>

#include <algorithm>
#include <boost/version.hpp>
#include <fstream>
#include <nlohmann/json.hpp>

#include "bench/build_info.h"

namespace moebench {
namespace {

constexpr const char* kUnknown = "not available";

std::string or_unknown(std::string text) { return text.empty() ? kUnknown : std::move(text); }

int num_numa_nodes(const HostRoots& roots) {
  int count = 0;
  std::error_code error;
  for (const auto& entry :
       std::filesystem::directory_iterator(roots.sys / "devices/system/node", error)) {
    const std::string name = entry.path().filename().string();
    if (name.size() > 4 && name.starts_with("node") && name[4] >= '0' && name[4] <= '9') ++count;
  }
  return count;
}

// The word in brackets of "always [madvise] never".
std::string chosen_word(const std::string& line) {
  const auto open = line.find('[');
  const auto close = line.find(']');
  if (open == std::string::npos || close == std::string::npos || close < open) return line;
  return line.substr(open + 1, close - open - 1);
}

std::string smt_state(const HostRoots& roots) {
  const auto active = number_in(roots.sys / "devices/system/cpu/smt/active");
  if (!active) return kUnknown;
  return *active != 0 ? "on" : "off";
}

std::string virtualisation(const HostRoots& roots) {
  const std::string hypervisor = first_line_of(roots.sys / "hypervisor/type");
  if (!hypervisor.empty()) return hypervisor;
  std::ifstream info(roots.proc / "cpuinfo");
  bool seen_flags = false;
  for (std::string line; std::getline(info, line);) {
    if (!line.starts_with("flags")) continue;
    seen_flags = true;
    if ((line + " ").find(" hypervisor ") == std::string::npos) break;
    const std::string product = first_line_of(roots.sys / "class/dmi/id/product_name");
    return product.empty() ? "a virtual machine" : "a virtual machine (" + product + ")";
  }
  return seen_flags ? "none seen" : kUnknown;
}

OrderedJson libraries() {
  OrderedJson json = {
      {"libc", gnu_get_libc_version()},
      {"fmt",
       fmt::format("{}.{}.{}", FMT_VERSION / 10000, FMT_VERSION / 100 % 100, FMT_VERSION % 100)},
      {"nlohmann_json", fmt::format("{}.{}.{}", NLOHMANN_JSON_VERSION_MAJOR,
                                    NLOHMANN_JSON_VERSION_MINOR, NLOHMANN_JSON_VERSION_PATCH)},
      {"boost", fmt::format("{}.{}.{}", BOOST_VERSION / 100000, BOOST_VERSION / 100 % 1000,
                            BOOST_VERSION % 100)}};
  if (void* symbol = dlsym(RTLD_DEFAULT, "XXH_versionNumber")) {
    const unsigned version = reinterpret_cast<unsigned (*)()>(symbol)();
    json["xxhash"] = fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100);
  }
  if (void* symbol = dlsym(RTLD_DEFAULT, "pcre2_config_8")) {
    constexpr std::uint32_t kVersion = 11;  // PCRE2_CONFIG_VERSION
    char text[64] = {};
    const auto config = reinterpret_cast<int (*)(std::uint32_t, void*)>(symbol);
    if (config(kVersion, nullptr) < static_cast<int>(sizeof(text)) && config(kVersion, text) > 0) {
      json["pcre2"] = std::string(text);
    }
  }
  return json;
}

}  // namespace

OrderedJson host_details(const HostRoots& roots) {
  const auto quota = cpu_quota(roots);
  const auto pages = number_in(roots.proc / "sys/vm/nr_hugepages");
  const int nodes = num_numa_nodes(roots);
  return {{"numa_nodes", nodes > 0 ? OrderedJson(nodes) : OrderedJson()},
          {"smt", smt_state(roots)},
          {"transparent_huge_pages", or_unknown(chosen_word(first_line_of(
                                         roots.sys / "kernel/mm/transparent_hugepage/enabled")))},
          {"huge_pages", pages ? OrderedJson(*pages) : OrderedJson()},
          {"virtualisation", virtualisation(roots)},
          {"cpu_quota", quota ? OrderedJson(*quota) : OrderedJson()},
          {"libraries", libraries()},
          {"compiler_flags", or_unknown(std::string(build_info::kFlags))}};
}

std::vector<IsolationAdvice> isolation_advice(int usable_cpus, int logical_cpus,
                                              const HostRoots& roots) {
  std::vector<IsolationAdvice> advice;
  const std::string smt = smt_state(roots);
  advice.push_back({"SMT", smt != "on",
                    smt == "on" ? "on: two threads share a core, so times depend on the neighbour "
                                  "(give -t as many threads as there are cores)"
                                : smt});
  const auto quota = cpu_quota(roots);
  const bool limited = quota && *quota < usable_cpus;
  advice.push_back({"CPU quota", !limited,
                    limited
                        ? fmt::format("{:.2f} CPUs for {} usable ones: threads are stopped "
                                      "in mid-step (give -t {} or lift the limit)",
                                      *quota, usable_cpus, std::max(1, static_cast<int>(*quota)))
                        : "none that binds"});
  const std::string huge =
      chosen_word(first_line_of(roots.sys / "kernel/mm/transparent_hugepage/enabled"));
  advice.push_back({"huge pages", huge == "always" || huge == "madvise",
                    huge.empty() ? kUnknown
                    : huge == "never"
                        ? "never: large weights are read through 4 KiB pages ('madvise' in "
                          "/sys/kernel/mm/transparent_hugepage/enabled is faster)"
                        : "transparent, " + huge});
  const bool whole_machine = usable_cpus == logical_cpus && logical_cpus > 1;
  advice.push_back(
      {"pinning", true,
       whole_machine
           ? fmt::format(
                 "none: this process may run on all {} CPUs (to keep one free for the rest: "
                 "taskset -c 1-{} moebench ... -t {})",
                 logical_cpus, logical_cpus - 1, logical_cpus - 1)
           : fmt::format("to {} of {} CPUs", usable_cpus, logical_cpus)});
  return advice;
}

}  // namespace moebench
