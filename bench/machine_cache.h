// What was measured of this machine before: JSON files in $XDG_CACHE_HOME/moebench or
// ~/.cache/moebench. They are only a memory of measurements: an unreadable one is an empty one.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "kernels/core/json_fields.h"

namespace moebench {

// Empty if the environment names no place for it.
std::filesystem::path machine_cache_path(std::string_view file);

// An object; empty where there is no file, or none that can be read.
Json read_machine_cache(const std::filesystem::path& path);

// Empty, or why it could not be written. Without a path nothing is written.
std::string write_machine_cache(const std::filesystem::path& path, const Json& cache);

}  // namespace moebench
