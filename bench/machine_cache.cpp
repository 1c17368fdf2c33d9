// Files that may be lost at any time.
#include "bench/machine_cache.h"

#include <cstdlib>

#include "engine/mapped_file.h"
#include "kernels/core/append_file.h"
#include "kernels/core/error.h"

namespace moebench {

std::filesystem::path machine_cache_path(std::string_view file) {
  if (const char* folder = std::getenv("XDG_CACHE_HOME"); folder != nullptr && *folder != '\0') {
    return std::filesystem::path(folder) / "moebench" / file;
  }
  if (const char* home = std::getenv("HOME"); home != nullptr && *home != '\0') {
    return std::filesystem::path(home) / ".cache" / "moebench" / file;
  }
  return {};
}

Json read_machine_cache(const std::filesystem::path& path) {
  if (path.empty() || !std::filesystem::exists(path)) return Json::object();
  try {
    Json cache = parse_json(read_text_file(path, 1 << 20), path.string(), 12);
    return cache.is_object() ? cache : Json::object();
  } catch (const Error&) {
    return Json::object();
  }
}

std::string write_machine_cache(const std::filesystem::path& path, const Json& cache) {
  if (path.empty()) return "";
  try {
    std::filesystem::create_directories(path.parent_path());
    write_file_atomically(path, cache.dump(1));
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

}  // namespace moebench
