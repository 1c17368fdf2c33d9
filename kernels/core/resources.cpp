// The search for shipped files.
#include "kernels/core/resources.h"

#include <fmt/ranges.h>

#include <cstdlib>
#include <string>
#include <system_error>
#include <vector>

#include "kernels/core/error.h"

namespace moebench {

std::filesystem::path find_resource(std::string_view relative) {
  std::vector<std::filesystem::path> roots;
  if (const char* home = std::getenv("MOEBENCH_HOME")) roots.emplace_back(home);
  std::error_code ignored;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", ignored);
  if (!program.empty()) roots.push_back(program.parent_path().parent_path() / "share/moebench");
  roots.emplace_back(MOEBENCH_SOURCE_DIR);
  std::vector<std::string> tried;
  for (const auto& root : roots) {
    const auto path = root / relative;
    if (std::filesystem::exists(path, ignored)) return path;
    tried.push_back(root.string());
  }
  fail(ErrorCode::kIo, "find {}: it is in none of {} (set MOEBENCH_HOME to moebench's source tree)",
       relative, fmt::join(tried, ", "));
}

}  // namespace moebench
