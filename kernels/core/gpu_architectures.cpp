// Reading CMAKE_CUDA_ARCHITECTURES.
#include "kernels/core/gpu_architectures.h"

#include <algorithm>
#include <cctype>
#include <charconv>

namespace moebench::gpu {
namespace {

// Calls visit(entry) for each entry of the list.
template <class Visitor>
void visit_entries(std::string_view list, Visitor&& visit) {
  while (!list.empty()) {
    const std::size_t end = std::min(list.find(','), list.size());
    if (end > 0) visit(list.substr(0, end));
    list.remove_prefix(std::min(end + 1, list.size()));
  }
}

bool entry_runs_on(std::string_view entry, int major, int minor) {
  int number = 0;
  const auto [after, error] = std::from_chars(entry.data(), entry.data() + entry.size(), number);
  if (error != std::errc()) return true;  // all, all-major, native: as good as a promise
  const std::string_view rest(after, static_cast<std::size_t>(entry.data() + entry.size() - after));
  const int has = major * 10 + minor;
  if (rest.starts_with('a')) return has == number;
  const bool machine_code = !rest.ends_with("-virtual");
  const bool ptx = !rest.ends_with("-real");
  return (machine_code && major == number / 10 && has >= number) || (ptx && has >= number);
}

}  // namespace

bool runs_on(std::string_view architectures, int compute_major, int compute_minor) {
  bool runs = false;
  visit_entries(architectures, [&](std::string_view entry) {
    runs = runs || entry_runs_on(entry, compute_major, compute_minor);
  });
  return runs;
}

std::string architecture_names(std::string_view architectures) {
  std::string names;
  visit_entries(architectures, [&](std::string_view entry) {
    const bool numbered = std::isdigit(static_cast<unsigned char>(entry.front())) != 0;
    names += names.empty() ? "" : ", ";
    if (numbered) names += "sm_";
    names += numbered ? entry.substr(0, entry.find('-')) : entry;
  });
  return names;
}

}  // namespace moebench::gpu
