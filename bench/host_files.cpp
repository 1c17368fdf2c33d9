// Small files of /proc and /sys.
#include "bench/host_files.h"

#include <charconv>
#include <fstream>
#include <sstream>

namespace moebench {

std::string first_line_of(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  const auto begin = line.find_first_not_of(" \t\r\n");
  if (begin == std::string::npos) return {};
  return line.substr(begin, line.find_last_not_of(" \t\r\n") - begin + 1);
}

std::optional<std::int64_t> number_in(const std::filesystem::path& path) {
  const std::string line = first_line_of(path);
  std::int64_t value = 0;
  const auto end = std::from_chars(line.data(), line.data() + line.size(), value);
  if (end.ec != std::errc()) return std::nullopt;
  return value;
}

std::optional<double> cpu_quota(const HostRoots& roots) {
  const std::filesystem::path groups = roots.sys / "fs" / "cgroup";
  std::int64_t quota = 0;
  std::int64_t period = 0;
  if (std::istringstream(first_line_of(groups / "cpu.max")) >> quota >> period) {
    if (quota > 0 && period > 0) return static_cast<double>(quota) / static_cast<double>(period);
    return std::nullopt;
  }
  const auto old_quota = number_in(groups / "cpu" / "cpu.cfs_quota_us");
  const auto old_period = number_in(groups / "cpu" / "cpu.cfs_period_us");
  if (!old_quota || !old_period || *old_quota <= 0 || *old_period <= 0) return std::nullopt;
  return static_cast<double>(*old_quota) / static_cast<double>(*old_period);
}

}  // namespace moebench
