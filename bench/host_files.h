// The files in which Linux tells of the machine, below roots that a test can replace.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

namespace moebench {

struct HostRoots {
  std::filesystem::path proc = "/proc";
  std::filesystem::path sys = "/sys";
};

// The first line, without spaces at its ends; empty if the file cannot be read.
std::string first_line_of(const std::filesystem::path& path);

// The number a file begins with; empty if it cannot be read or begins with none.
std::optional<std::int64_t> number_in(const std::filesystem::path& path);

// "max 100000" or "150000 100000" of the control group's cpu.max, as CPUs: 1.5. Empty without a
// limit, or where no limit can be read (also of version 1 of control groups: cpu.cfs_quota_us).
std::optional<double> cpu_quota(const HostRoots& roots = {});

}  // namespace moebench
